using System.Runtime.InteropServices;
using Grpc.Core;
using VNetMesh.Native;
using VNetMesh.Packets;
using VNetMesh.V1;

namespace VNetMesh.Links;

/// <summary>One side of an Attach stream after hello and welcome: batches of frames each way.</summary>
public interface IFrameBatchStream : IDisposable
{
    /// <summary>The next batch; null when the far side has ended the stream.</summary>
    Task<FrameBatch?> ReadAsync(CancellationToken cancellation);

    /// <summary>When it is done, the batch is on its way, and may be written over.</summary>
    Task WriteAsync(FrameBatch batch, CancellationToken cancellation);
}

/// <summary>
/// A frame link over a gRPC stream. Between the loop's thread and two pumps, which wait for the stream, there is a ring
/// each way, of fixed size; the loop's thread only ever touches the rings.
/// <code>
/// loop ── TrySend ──► ring ──► writing pump ──► stream      ring full: SendStatus.Full, the caller counts its drop
/// loop ◄─ TryReceive ─ ring ◄── reading pump ◄── stream     ring full: the pump waits, and flow control stops the far side
/// </code>
/// A frame that cannot be a record (its length or its offload out of range) is dropped and counted in <see cref="MalformedFrames"/>.
/// Trace contexts travel as <see cref="Frame.Traceparent"/>.
/// </summary>
public sealed class StreamLink : IFrameLink
{
    private readonly IFrameBatchStream _stream;
    private readonly CancellationTokenSource _stop = new();
    private readonly SemaphoreSlim _hasWork = new(0, 1);
    private readonly SemaphoreSlim _hasRoom = new(0, 1);
    private readonly FileDescriptor _doorbell = SysEpoll.CreateEvent();
    private readonly nint _memory;

    // A ring has one producer and one consumer, and keeps both their indices: one object a ring serves both.
    private readonly Ring _in;
    private readonly Ring _out;
    private volatile string? _ended;
    private bool _endSeen;
    private bool _disposed;
    private long _malformedFrames;

    /// <param name="stream">Past hello and welcome; owned from now on.</param>
    /// <param name="offloads">What the far side accepts.</param>
    /// <param name="capacity">Octets of the ring of each direction, see <see cref="Ring.IsGoodCapacity"/>.</param>
    public StreamLink(IFrameBatchStream stream, LinkOffloads offloads, int capacity = 1024 * 1024)
    {
        Ring.ThrowIfBadCapacity(capacity);
        _stream = stream;
        Offloads = offloads;
        unsafe
        {
            nuint size = (nuint)Ring.SizeOf(capacity);
            var memory = (byte*)NativeMemory.AlignedAlloc(2 * size, 64);
            NativeMemory.Clear(memory, 2 * size);
            _memory = (nint)memory;
            _in = new Ring(memory, capacity);
            _out = new Ring(memory + size, capacity);
        }
        Completion = PumpAsync();
    }

    public int Descriptor => _doorbell.Number;

    public LinkOffloads Offloads { get; }

    /// <summary>Why the stream has ended; null while it has not.</summary>
    public string? EndReason => _ended;

    /// <summary>Octets that were put on their way, and those that are not yet.</summary>
    public (ulong Taken, ulong Pending) Progress => _disposed ? default : _out.Progress;

    /// <summary>Frames from the far side that were dropped because their length or their offload is out of range.</summary>
    public long MalformedFrames => Volatile.Read(ref _malformedFrames);

    /// <summary>Done when the stream has ended and both pumps have let go of it. Never fails.</summary>
    public Task Completion { get; }

    /// <summary>Opens a port by Attach, and returns when the switch has welcomed it; gives up after 5 s.</summary>
    /// <exception cref="RpcException">The switch is away (UNAVAILABLE), refused the port, or did not answer in time (DEADLINE_EXCEEDED).</exception>
    public static async Task<StreamLink> AttachAsync(PortService.PortServiceClient client, AttachHello hello, int capacity, CancellationToken cancellation)
    {
        var lifetime = new CancellationTokenSource();
        AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call = client.Attach(cancellationToken: lifetime.Token);
        var stream = new AttachClientStream(call, lifetime);
        try
        {
            using CancellationTokenSource patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            patience.CancelAfter(TimeSpan.FromSeconds(5));
            using (patience.Token.Register(lifetime.Cancel))
            {
                await call.RequestStream.WriteAsync(new AttachRequest { Hello = hello }, patience.Token).ConfigureAwait(false);
                if (!await call.ResponseStream.MoveNext(patience.Token).ConfigureAwait(false) || call.ResponseStream.Current.Welcome is null)
                    throw new RpcException(new Status(StatusCode.Internal, "the switch did not welcome the port"));
            }
            // What the switch takes from a stream is not limited: each frame says itself what is left to be done.
            return new StreamLink(stream, LinkOffloads.All, capacity);
        }
        catch (Exception exception)
        {
            stream.Dispose();
            cancellation.ThrowIfCancellationRequested();
            if (exception is OperationCanceledException || exception is RpcException { StatusCode: StatusCode.Cancelled } && lifetime.IsCancellationRequested)
                throw new RpcException(new Status(StatusCode.DeadlineExceeded, "the switch did not answer to Attach within 5 s"));
            throw;
        }
    }

    public ReceiveStatus TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace)
    {
        record = default;
        trace = default;
        if (_disposed)
            return ReceiveStatus.Closed;
        // Read before the ring is: what came before the end is still given out.
        bool ended = _ended is not null;
        ReceiveStatus status = _in.TryTake(out record, out trace);
        if (status != ReceiveStatus.Empty || !ended)
            return status;
        _endSeen = true;
        return ReceiveStatus.Closed;
    }

    public SendStatus TrySend(ReadOnlySpan<byte> record, in TraceContext trace)
    {
        Span<byte> room = Reserve(record.Length);
        if (!room.IsEmpty)
        {
            record.CopyTo(room);
            return Commit(record.Length, trace);
        }
        if (_disposed || _ended is not null)
            return SendStatus.Closed;
        return record.Length is < FrameRecord.MinLength or > FrameRecord.MaxLength ? SendStatus.Refused : SendStatus.Full;
    }

    public Span<byte> Reserve(int length)
    {
        if (_disposed || _ended is not null || length is < FrameRecord.MinLength or > FrameRecord.MaxLength)
            return default;
        Span<byte> room = _out.Reserve(length);
        if (room.IsEmpty && !_out.WaitForRoom())
            room = _out.Reserve(length);
        return room;
    }

    public SendStatus Commit(int length, in TraceContext trace)
    {
        if (_disposed || _ended is not null)
            return SendStatus.Closed;
        return length >= FrameRecord.MinLength && _out.Commit(length, trace) ? SendStatus.Sent : SendStatus.Refused;
    }

    public void Flush()
    {
        if (_disposed)
            return;
        _in.Release();
        if (_out.TakeConsumerDoorbell())
            Wake(_hasWork);
        if (_in.TakeProducerDoorbell())
            Wake(_hasRoom);
    }

    public bool PrepareToSleep()
    {
        if (_disposed)
            return true;
        SysEpoll.Drain(_doorbell.Number);
        Flush();
        bool nothingCame = _in.PrepareToSleep();
        bool roomCame = _out.TakeRoom();
        return nothingCame && !roomCame && (_endSeen || _ended is null);
    }

    /// <summary>Ends the stream. What was sent and is not on its way yet is lost.</summary>
    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        _ = ReleaseAsync();
    }

    private static void Wake(SemaphoreSlim semaphore)
    {
        // Only the loop's thread releases, so it cannot go beyond one.
        if (semaphore.CurrentCount == 0)
            semaphore.Release();
    }

    // The pumps may be in the middle of the memory: it is given back when both have stopped.
    private async Task ReleaseAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await Completion.ConfigureAwait(false);
        Free();
        _doorbell.Dispose();
        _stop.Dispose();
        _hasWork.Dispose();
        _hasRoom.Dispose();
    }

    private unsafe void Free() => NativeMemory.AlignedFree((void*)_memory);

    private async Task PumpAsync()
    {
        // Off the constructor's thread at once: the stream's first answer may be there already.
        await Task.Yield();
        Task reading = ReadPumpAsync();
        Task writing = WritePumpAsync();
        Task first = await Task.WhenAny(reading, writing).ConfigureAwait(false);
        string reason = Explain(first.Exception?.InnerException);
        if (!_stop.IsCancellationRequested)
            await _stop.CancelAsync().ConfigureAwait(false);
        _stream.Dispose();
        await Task.WhenAll(reading, writing).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _ended = reason;
        SysEpoll.Signal(_doorbell);
    }

    private static string Explain(Exception? exception) => exception switch
    {
        null => "the far side ended the stream",
        RpcException { StatusCode: StatusCode.Cancelled } or OperationCanceledException => "the stream was cancelled",
        RpcException rpc => rpc.Status.Detail,
        _ => exception.Message,
    };

    private async Task ReadPumpAsync()
    {
        while (await _stream.ReadAsync(_stop.Token).ConfigureAwait(false) is { } batch)
        {
            foreach (Frame frame in batch.Frames)
            {
                while (!TryPut(frame))
                {
                    RingLoop();
                    await _hasRoom.WaitAsync(_stop.Token).ConfigureAwait(false);
                }
            }
            RingLoop();
        }
    }

    /// <returns>False: there is no room, and the loop's thread will say when there is.</returns>
    private bool TryPut(Frame frame)
    {
        ReadOnlySpan<byte> data = frame.Data.Span;
        if (data.Length is < EthernetView.HeaderLength or > FrameRecord.MaxFrameLength || !FrameOffloads.TryRead(frame.Offload, out VirtioNetHeader header))
        {
            Interlocked.Increment(ref _malformedFrames);
            return true;
        }
        int length = VirtioNetHeader.Length + data.Length;
        Span<byte> room = _in.Reserve(length);
        if (room.IsEmpty && !_in.WaitForRoom())
            room = _in.Reserve(length);
        if (room.IsEmpty)
            return false;
        header.Write(room);
        data.CopyTo(room[VirtioNetHeader.Length..]);
        return _in.Commit(length, TraceContext.Parse(frame.Traceparent));
    }

    private void RingLoop()
    {
        if (_in.TakeConsumerDoorbell())
            SysEpoll.Signal(_doorbell);
    }

    private async Task WritePumpAsync()
    {
        var batch = new FrameBatchBuffer();
        while (true)
        {
            Fill(batch);
            if (!batch.IsEmpty)
                await _stream.WriteAsync(batch.Batch, _stop.Token).ConfigureAwait(false);
            else if (_out.PrepareToSleep())
                await _hasWork.WaitAsync(_stop.Token).ConfigureAwait(false);
        }
    }

    /// <summary>Takes what waits to be sent, at most one batch.</summary>
    private void Fill(FrameBatchBuffer batch)
    {
        batch.Clear();
        while (!batch.IsFull && _out.TryTake(out ReadOnlySpan<byte> record, out TraceContext trace) == ReceiveStatus.Received)
            batch.Add(record, trace);
        _out.Release();
        if (_out.TakeProducerDoorbell())
            SysEpoll.Signal(_doorbell);
    }

    private sealed class AttachClientStream(AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call, CancellationTokenSource lifetime) : IFrameBatchStream
    {
        public async Task<FrameBatch?> ReadAsync(CancellationToken cancellation)
        {
            while (await call.ResponseStream.MoveNext(cancellation).ConfigureAwait(false))
            {
                if (call.ResponseStream.Current.Frames is { } frames)
                    return frames;
            }
            return null;
        }

        public Task WriteAsync(FrameBatch batch, CancellationToken cancellation) => call.RequestStream.WriteAsync(new AttachRequest { Frames = batch }, cancellation);

        public void Dispose()
        {
            lifetime.Cancel();
            call.Dispose();
            lifetime.Dispose();
        }
    }
}
