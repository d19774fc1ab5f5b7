using Google.Protobuf;
using Grpc.Core;
using VNetMesh.Packets;
using VNetMesh.Switch.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Rpc;

/// <summary>An Attach client as anyone could write one.</summary>
internal sealed class AttachClient : IDisposable
{
    private readonly AsyncDuplexStreamingCall<AttachRequest, AttachResponse> _call;

    private AttachClient(AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call) => _call = call;

    public AttachWelcome Welcome { get; private set; } = null!;

    public static async Task<AttachClient> OpenAsync(SwitchProcess process, AttachHello hello, CancellationToken cancellation = default)
    {
        var client = new AttachClient(process.Ports.Attach(cancellationToken: cancellation));
        await client._call.RequestStream.WriteAsync(new AttachRequest { Hello = hello }, cancellation);
        Assert.True(await client._call.ResponseStream.MoveNext(new CancellationTokenSource(5000).Token));
        client.Welcome = client._call.ResponseStream.Current.Welcome;
        return client;
    }

    public Task SendAsync(params byte[][] frames)
    {
        var batch = new FrameBatch();
        batch.Frames.AddRange(frames.Select(frame => new Frame { Data = ByteString.CopyFrom(frame) }));
        return SendAsync(batch);
    }

    public Task SendAsync(FrameBatch batch) => _call.RequestStream.WriteAsync(new AttachRequest { Frames = batch });

    /// <summary>The next batch; fails after five seconds.</summary>
    public async Task<FrameBatch> ReceiveAsync()
    {
        using var limit = new CancellationTokenSource(5000);
        Assert.True(await _call.ResponseStream.MoveNext(limit.Token));
        return _call.ResponseStream.Current.Frames;
    }

    /// <summary>Ends the stream as a client should.</summary>
    public async Task CompleteAsync()
    {
        await _call.RequestStream.CompleteAsync();
        while (await _call.ResponseStream.MoveNext(default))
        {
        }
    }

    public static byte[] Frame(MacAddress destination, MacAddress source, int payload = 46) => Frames.Record(destination, source, payload)[VirtioNetHeader.Length..];

    public void Dispose() => _call.Dispose();
}
