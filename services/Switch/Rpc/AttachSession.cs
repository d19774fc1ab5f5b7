using System.Security.Cryptography;
using Grpc.Core;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;
using VNetMesh.V1;
using PortTransport = VNetMesh.Switch.Registry.PortTransport;

namespace VNetMesh.Switch.Rpc;

/// <summary>
/// One Attach stream: hello and welcome, then batches both ways. Two tasks, one for each way; when either ends, so does
/// the other, and the port vanishes with them.
/// </summary>
internal sealed class AttachSession(NetworkRegistry registry, PortDirectory ports, IAsyncStreamReader<AttachRequest> requests, IServerStreamWriter<AttachResponse> responses)
{
    /// <summary>How long the end of a stream waits for what is still under way.</summary>
    private static readonly TimeSpan Linger = TimeSpan.FromSeconds(1);

    /// <exception cref="RegistryException">The hello was refused.</exception>
    /// <exception cref="RpcException">The client broke the protocol, or its port was taken from it.</exception>
    public async Task RunAsync(CancellationToken cancellation)
    {
        if (!await requests.MoveNext(cancellation) || requests.Current.Hello is not { } hello)
            throw RpcErrors.InvalidArgument("HELLO_REQUIRED", "the first message of an Attach stream must be the hello");
        PortEntry entry = ports.RegisterStream(ToInfo(hello));
        var link = new AttachLink(entry.Info.Offloads ?? LinkOffloads.None);
        long connection = 0;
        try
        {
            connection = await ports.ConnectAsync(entry, link, null);
            var welcome = new AttachWelcome { Port = entry.Info.ToMessage(), Network = registry.Get(entry.Info.Network).ToMessage() };
            await responses.WriteAsync(new AttachResponse { Welcome = welcome }, cancellation);
            await CarryFramesAsync(entry, link, cancellation);
        }
        catch (InvalidOperationException) when (link.IsClosed)
        {
            throw PortTaken(entry);
        }
        finally
        {
            ports.RemoveStream(entry, connection);
            link.CloseStream();
        }
    }

    private static RpcException PortTaken(PortEntry entry) =>
        RpcErrors.Aborted("PORT_REMOVED", $"{entry.Info.Name} was removed, or another link was connected to it", ("port", entry.Info.Name));

    private static PortInfo ToInfo(AttachHello hello) => new()
    {
        Network = hello.Network,
        Id = hello.PortId.Length > 0 ? hello.PortId : "stream-" + RandomNumberGenerator.GetHexString(10, lowercase: true),
        Role = (Registry.PortRole)hello.Role,
        Transport = PortTransport.Stream,
        Mac = PortMessages.ToMac(hello.Mac),
        Offloads = PortMessages.ToOffloads(hello.Offloads) ?? LinkOffloads.None,
        Owner = hello.Owner,
    };

    private async Task CarryFramesAsync(PortEntry entry, AttachLink link, CancellationToken cancellation)
    {
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        using var linger = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Task reading = ReadAsync(entry, link, ending.Token), writing = WriteAsync(link, ending.Token, linger.Token);
        Task first = await Task.WhenAny(reading, writing);
        // A client that ends its side in order loses nothing: what it sent is still forwarded, and a batch on its way to it
        // is not cut off, which would reset the stream. A client that does not read keeps neither waiting for long.
        linger.CancelAfter(Linger);
        if (first == reading && reading.IsCompletedSuccessfully)
            await link.DrainFromClientAsync(linger.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await ending.CancelAsync();
        // Both must have left the link before it is closed.
        await Task.WhenAll(reading, writing).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (first == writing && link.IsClosed)
            throw PortTaken(entry);
        await first;
    }

    private async Task ReadAsync(PortEntry entry, AttachLink link, CancellationToken cancellation)
    {
        while (await requests.MoveNext(cancellation))
        {
            if (requests.Current.Frames is not { } batch)
                throw RpcErrors.InvalidArgument("FRAMES_REQUIRED", "after the hello, every message must be a batch of frames");
            if (batch.Frames.Count > FrameBatchBuffer.MaxFrames)
                throw RpcErrors.InvalidArgument("BATCH_TOO_LARGE", $"a batch has at most {FrameBatchBuffer.MaxFrames} frames, not {batch.Frames.Count}");
            foreach (Frame frame in batch.Frames)
            {
                if (frame.Data.Length > FrameRecord.MaxFrameLength)
                    entry.Forwarding.ReaderDrops.CountDrop(DropCause.FrameTooLong);
                else if (!FrameOffloads.TryRead(frame.Offload, out VirtioNetHeader header))
                    entry.Forwarding.ReaderDrops.CountDrop(DropCause.HeaderInconsistent);
                else if (!await link.PutFromClientAsync(header, frame.Data.Memory, TraceContext.Parse(frame.Traceparent), cancellation))
                    return;
            }
            link.FlushFromClient();
        }
    }

    /// <param name="link">What to take frames from.</param>
    /// <param name="ending">Ends the writing before the next batch.</param>
    /// <param name="cancellation">Cuts off the batch under way as well.</param>
    private async Task WriteAsync(AttachLink link, CancellationToken ending, CancellationToken cancellation)
    {
        var batch = new FrameBatchBuffer();
        var response = new AttachResponse { Frames = batch.Batch };
        while (!link.IsClosed && !ending.IsCancellationRequested)
        {
            Fill(batch, link);
            if (batch.IsEmpty)
                await link.WaitForClientAsync(ending);
            else
                await responses.WriteAsync(response, cancellation);
        }
    }

    private static void Fill(FrameBatchBuffer batch, AttachLink link)
    {
        batch.Clear();
        while (!batch.IsFull && link.TryTakeForClient(out ReadOnlySpan<byte> record, out TraceContext trace))
        {
            if (record.Length >= FrameRecord.MinLength)
                batch.Add(record, trace);
        }
    }
}
