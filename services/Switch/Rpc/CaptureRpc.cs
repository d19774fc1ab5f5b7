using Grpc.Core;
using VNetMesh.Hosting;
using VNetMesh.Switch.Capturing;
using VNetMesh.Switch.Registry;
using VNetMesh.V1;

namespace VNetMesh.Switch.Rpc;

/// <summary>CaptureService: translates, and carries what was captured to its reader.</summary>
public sealed class CaptureRpc(Captures captures, IHostApplicationLifetime lifetime) : CaptureService.CaptureServiceBase
{
    private const int MaxBatchFrames = 256;

    /// <summary>Beyond this a batch is sent before it has 256 frames: messages should stay far below gRPC's limit.</summary>
    private const int MaxBatchBytes = 256 * 1024;

    /// <summary>How often an empty buffer is looked at. At 8 MiB, it fills in that time at 6 Gbit/s and more.</summary>
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(10);

    public override async Task Capture(CaptureRequest request, IServerStreamWriter<CaptureResponse> responseStream, ServerCallContext context)
    {
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, lifetime.ApplicationStopping);
        try
        {
            CaptureSession session = await captures.StartAsync(CaptureMessages.ToOptions(request));
            try
            {
                await responseStream.WriteAsync(new CaptureResponse { Started = session.ToMessage() }, ending.Token);
                await CarryAsync(session, request.MaxFrames, responseStream, ending.Token);
            }
            finally
            {
                await captures.EndAsync(session);
            }
        }
        catch (RegistryException refusal)
        {
            throw refusal.ToRpc();
        }
        catch (OperationCanceledException) when (lifetime.ApplicationStopping.IsCancellationRequested)
        {
            throw Refusals.Stopping();
        }
    }

    public override Task<ListCapturesResponse> ListCaptures(ListCapturesRequest request, ServerCallContext context)
    {
        var response = new ListCapturesResponse();
        response.Captures.AddRange(captures.List().Select(session => session.ToMessage()));
        return Task.FromResult(response);
    }

    public override async Task<StopCaptureResponse> StopCapture(StopCaptureRequest request, ServerCallContext context)
    {
        await Refusals.Translate(() => captures.StopAsync(request.Name));
        return new StopCaptureResponse();
    }

    private static async Task CarryAsync(CaptureSession session, ulong maxFrames, IServerStreamWriter<CaptureResponse> writer, CancellationToken cancellation)
    {
        ulong left = maxFrames == 0 ? ulong.MaxValue : maxFrames;
        while (left > 0)
        {
            // Asked first: what was captured before the end is still to be taken.
            CaptureEnd ended = session.Ended;
            CaptureBatch batch = TakeBatch(session, left);
            left -= (ulong)batch.Frames.Count;
            if (batch.Frames.Count > 0)
                await writer.WriteAsync(new CaptureResponse { Batch = batch }, cancellation);
            else if (ended == CaptureEnd.NetworkRemoved)
                throw RpcErrors.Aborted("NETWORK_REMOVED", $"{session.Options.Network} was removed", ("network", session.Options.Network));
            else if (ended == CaptureEnd.Stopped)
                break;
            else
                await Task.Delay(Pause, cancellation);
        }
        await writer.WriteAsync(new CaptureResponse { Ended = session.ToStatistics() }, cancellation);
    }

    private static CaptureBatch TakeBatch(CaptureSession session, ulong maxFrames)
    {
        var batch = new CaptureBatch();
        int most = (int)Math.Min(MaxBatchFrames, maxFrames);
        for (int octets = 0; batch.Frames.Count < most && octets < MaxBatchBytes && session.TryTake(out CaptureEntry entry, out Span<byte> frame);)
            octets += CaptureMessages.AddFrame(batch, session.Options, entry, frame);
        // The segments of one record may be more than were asked for.
        while ((ulong)batch.Frames.Count > maxFrames)
            batch.Frames.RemoveAt(batch.Frames.Count - 1);
        batch.Statistics = session.ToStatistics();
        return batch;
    }
}
