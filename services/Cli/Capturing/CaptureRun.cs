using Grpc.Core;
using VNetMesh.Cli.Connections;
using VNetMesh.Native;
using VNetMesh.V1;

namespace VNetMesh.Cli.Capturing;

/// <summary>One run of `vnet capture`: from the first frame to an end in order, whoever ends it.</summary>
internal sealed class CaptureRun(CaptureService.CaptureServiceClient captures, CaptureRequest request, Func<ICaptureSink> openSink)
{
    /// <summary>How long an end in order may take after Ctrl-C.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(1.5);

    private CaptureStatistics _statistics = new();
    private ulong _frames;

    public async Task<int> RunAsync(CancellationToken cancellation)
    {
        using var limit = new CancellationTokenSource();
        using AsyncServerStreamingCall<CaptureResponse> call = captures.Capture(request, cancellationToken: limit.Token);
        // Before it has begun there is nothing to end in order.
        using (cancellation.Register(limit.Cancel))
        {
            if (!await call.ResponseStream.MoveNext(limit.Token))
                throw new CliException(ExitCode.Failed, "the switch ended the capture before it began; see: vnet log show switch");
        }
        CaptureInfo started = call.ResponseStream.Current.Started;
        using ICaptureSink sink = openSink();
        sink.Begin(started);
        string place = Names.NetworkOf(started.Network) + (started.Port.Length > 0 ? "/" + Names.Short(started.Port) : "");
        Console.Error.WriteLine($"capturing {place}; Ctrl-C ends it");
        await using (cancellation.Register(() => _ = StopAsync(started.Name, limit)))
        {
            try
            {
                await CarryAsync(call.ResponseStream, sink);
            }
            catch (RpcException) when (cancellation.IsCancellationRequested)
            {
                // It did not end in time. What is known so far is known.
            }
            catch (IOException exception) when (exception.HResult == NativeErrno.EPIPE)
            {
                // The reader of our output has seen enough.
            }
            finally
            {
                End(sink);
            }
        }
        return ExitCode.Ok;
    }

    private async Task CarryAsync(IAsyncStreamReader<CaptureResponse> responses, ICaptureSink sink)
    {
        while (await responses.MoveNext(CancellationToken.None))
        {
            CaptureResponse response = responses.Current;
            if (response.Ended is not null)
            {
                _statistics = response.Ended;
                return;
            }
            ulong missed = response.Batch.Statistics.Missed - _statistics.Missed;
            _statistics = response.Batch.Statistics;
            _frames += (ulong)response.Batch.Frames.Count;
            sink.Write(response.Batch.Frames, missed);
        }
    }

    private void End(ICaptureSink sink)
    {
        try
        {
            sink.End(_statistics);
        }
        catch (IOException)
        {
            // Nobody reads it any more.
        }
        string filtered = request.Filter is null ? "" : $"; {_statistics.Matched} of {_statistics.Seen} seen passed the filter";
        Console.Error.WriteLine($"{_frames} frames captured, {_statistics.Missed} missed{filtered}");
    }

    private async Task StopAsync(string name, CancellationTokenSource limit)
    {
        limit.CancelAfter(Patience);
        try
        {
            await captures.StopCaptureAsync(new StopCaptureRequest { Name = name }, deadline: DateTime.UtcNow + Patience);
        }
        catch (RpcException)
        {
            // It has ended already, or the switch is gone; the stream says so.
        }
    }
}
