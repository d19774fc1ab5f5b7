using Google.Protobuf;
using Google.Protobuf.Reflection;
using Grpc.Core;
using Grpc.Reflection.V1Alpha;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>A message as generic tooling sees it: values by field name. Numbers are <see cref="ulong"/> or <see cref="long"/>, repeated fields lists, maps lists of entries.</summary>
public sealed class DynamicMessage : Dictionary<string, object>
{
    public DynamicMessage() : base(StringComparer.Ordinal) { }

    public string Text(string field) => (string)this[field];

    public DynamicMessage Message(string field) => (DynamicMessage)this[field];

    public IReadOnlyList<object> List(string field) => TryGetValue(field, out object? value) ? (List<object>)value : [];
}

/// <summary>
/// A gRPC client that knows nothing of VNetMesh: it asks the reflection service for descriptors, and writes and reads messages by
/// them. What grpcurl does, and tooling of any language.
/// </summary>
public sealed class DynamicClient(ChannelBase channel)
{
    private static readonly Marshaller<byte[]> Bytes = Marshallers.Create(bytes => bytes, bytes => bytes);
    private readonly CallInvoker _invoker = channel.CreateCallInvoker();
    private readonly Dictionary<string, FileDescriptor> _files = [];

    public async Task<IReadOnlyList<string>> ListServicesAsync()
    {
        ServerReflectionResponse answer = await AskAsync(new ServerReflectionRequest { ListServices = "*" });
        return [.. answer.ListServicesResponse.Service.Select(service => service.Name).Order(StringComparer.Ordinal)];
    }

    public async Task<ServiceDescriptor> DescribeAsync(string service)
    {
        ServerReflectionResponse answer = await AskAsync(new ServerReflectionRequest { FileContainingSymbol = service });
        var known = answer.FileDescriptorResponse.FileDescriptorProto.Select(file => FileDescriptorProto.Parser.ParseFrom(file)).ToDictionary(file => file.Name);
        var ordered = new List<ByteString>();
        var taken = new HashSet<string>();
        foreach (string name in known.Keys.ToList())
            await AddWithImportsAsync(name, known, taken, ordered);
        foreach (FileDescriptor file in FileDescriptor.BuildFromByteStrings(ordered))
            _files[file.Name] = file;
        return _files.Values.SelectMany(file => file.Services).Single(found => found.FullName == service);
    }

    public async Task<DynamicMessage> CallAsync(MethodDescriptor method, DynamicMessage request)
    {
        byte[] answer = await _invoker.AsyncUnaryCall(Method(method, MethodType.Unary), null, new CallOptions(deadline: DateTime.UtcNow.AddSeconds(10)), Encode(method.InputType, request));
        return Decode(method.OutputType, answer);
    }

    public AsyncDuplexStreamingCall<byte[], byte[]> Stream(MethodDescriptor method) =>
        _invoker.AsyncDuplexStreamingCall(Method(method, MethodType.DuplexStreaming), null, new CallOptions(deadline: DateTime.UtcNow.AddSeconds(60)));

    public static byte[] Encode(MessageDescriptor type, DynamicMessage message)
    {
        using var memory = new MemoryStream();
        using var output = new CodedOutputStream(memory);
        foreach ((string name, object value) in message)
        {
            FieldDescriptor field = type.FindFieldByName(name) ?? throw new InvalidOperationException($"{type.FullName} has no field {name}");
            foreach (object element in field.IsRepeated ? (IEnumerable<object>)value : [value])
                EncodeField(output, field, element);
        }
        output.Flush();
        return memory.ToArray();
    }

    public static DynamicMessage Decode(MessageDescriptor type, byte[] bytes)
    {
        var message = new DynamicMessage();
        var input = new CodedInputStream(bytes);
        uint tag;
        while ((tag = input.ReadTag()) != 0)
        {
            FieldDescriptor? field = type.FindFieldByNumber(WireFormat.GetTagFieldNumber(tag));
            if (field is null)
            {
                input.SkipLastField();
                continue;
            }
            if (!field.IsRepeated)
            {
                message[field.Name] = DecodeValue(input, field);
                continue;
            }
            if (!message.TryGetValue(field.Name, out object? list))
                message[field.Name] = list = new List<object>();
            ((List<object>)list).Add(DecodeValue(input, field));
        }
        return message;
    }

    private static void EncodeField(CodedOutputStream output, FieldDescriptor field, object value)
    {
        switch (field.FieldType)
        {
            case FieldType.String:
                output.WriteTag(field.FieldNumber, WireFormat.WireType.LengthDelimited);
                output.WriteString((string)value);
                break;
            case FieldType.Bytes:
                output.WriteTag(field.FieldNumber, WireFormat.WireType.LengthDelimited);
                output.WriteBytes(ByteString.CopyFrom((byte[])value));
                break;
            case FieldType.Message:
                output.WriteTag(field.FieldNumber, WireFormat.WireType.LengthDelimited);
                output.WriteBytes(ByteString.CopyFrom(Encode(field.MessageType, (DynamicMessage)value)));
                break;
            case FieldType.Bool or FieldType.Enum or FieldType.Int32 or FieldType.Int64 or FieldType.UInt32 or FieldType.UInt64:
                output.WriteTag(field.FieldNumber, WireFormat.WireType.Varint);
                output.WriteUInt64(Convert.ToUInt64(value, System.Globalization.CultureInfo.InvariantCulture));
                break;
            default:
                throw new InvalidOperationException($"no field of VNetMesh is of type {field.FieldType}");
        }
    }

    private static object DecodeValue(CodedInputStream input, FieldDescriptor field) => field.FieldType switch
    {
        FieldType.String => input.ReadString(),
        FieldType.Bytes => input.ReadBytes().ToByteArray(),
        FieldType.Message => Decode(field.MessageType, input.ReadBytes().ToByteArray()),
        FieldType.Bool => input.ReadBool(),
        FieldType.Enum => field.EnumType.FindValueByNumber(input.ReadEnum())?.Name ?? "?",
        FieldType.Int32 or FieldType.Int64 => input.ReadInt64(),
        FieldType.UInt32 or FieldType.UInt64 => input.ReadUInt64(),
        _ => throw new InvalidOperationException($"no field of VNetMesh is of type {field.FieldType}"),
    };

    private static Method<byte[], byte[]> Method(MethodDescriptor method, MethodType type) => new(type, method.Service.FullName, method.Name, Bytes, Bytes);

    /// <summary>Descriptors are built in order, imports first; what the server did not send along is asked for.</summary>
    private async Task AddWithImportsAsync(string name, Dictionary<string, FileDescriptorProto> known, HashSet<string> taken, List<ByteString> ordered)
    {
        if (!taken.Add(name))
            return;
        if (!known.TryGetValue(name, out FileDescriptorProto? file))
        {
            ServerReflectionResponse answer = await AskAsync(new ServerReflectionRequest { FileByFilename = name });
            known[name] = file = FileDescriptorProto.Parser.ParseFrom(answer.FileDescriptorResponse.FileDescriptorProto[0]);
        }
        foreach (string import in file.Dependency)
            await AddWithImportsAsync(import, known, taken, ordered);
        ordered.Add(file.ToByteString());
    }

    private async Task<ServerReflectionResponse> AskAsync(ServerReflectionRequest request)
    {
        var client = new ServerReflection.ServerReflectionClient(channel);
        using AsyncDuplexStreamingCall<ServerReflectionRequest, ServerReflectionResponse> call = client.ServerReflectionInfo(deadline: DateTime.UtcNow.AddSeconds(10));
        await call.RequestStream.WriteAsync(request);
        Assert.True(await call.ResponseStream.MoveNext(CancellationToken.None), "reflection gave no answer");
        ServerReflectionResponse answer = call.ResponseStream.Current;
        Assert.True(answer.ErrorResponse is null, answer.ErrorResponse?.ErrorMessage);
        // Ended in order: a call that is simply dropped stands as an error in the service's log.
        await call.RequestStream.CompleteAsync();
        Assert.False(await call.ResponseStream.MoveNext(CancellationToken.None), "reflection answered twice");
        return answer;
    }
}
