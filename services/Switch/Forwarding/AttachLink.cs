using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Switch.Forwarding;

/// <summary>
/// The link of an Attach stream: two bounded queues between the network's loop and the tasks that read and write the
/// stream. Towards the client a full queue loses frames ("queue_full"); from the client a full queue makes the
/// reader wait, so that HTTP/2's flow control stops the client.
/// </summary>
public sealed class AttachLink : IFrameLink
{
    /// <summary>Frames that wait for a client at most.</summary>
    public const int MaxFrames = 1024;

    /// <summary>Octets that wait for a client at most, and for the loop a quarter of it.</summary>
    public const int MaxBytes = 4 * 1024 * 1024;

    private readonly StreamQueue _toClient = new(MaxBytes, MaxFrames);
    private readonly StreamQueue _fromClient = new(MaxBytes / 4, MaxFrames);
    private readonly FileDescriptor _doorbell = SysEpoll.CreateEvent();
    private readonly SemaphoreSlim _clientReady = new(0, 1);
    private readonly SemaphoreSlim _roomMade = new(0, 1);
    private int _users = 2;
    private int _released;
    private volatile bool _closed;

    public AttachLink(LinkOffloads offloads) => Offloads = offloads;

    public int Descriptor => _doorbell.Number;

    public LinkOffloads Offloads { get; }

    /// <summary>The loop has let go of the link, or the stream has ended.</summary>
    public bool IsClosed => _closed;

    // The loop's side.

    public LinkOccupancy? Occupancy => _closed ? null : new LinkOccupancy((double)_fromClient.Consumer.Waiting / (MaxBytes / 4), (double)_toClient.Producer.Progress.Pending / MaxBytes);

    public ReceiveStatus TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace)
    {
        // Asked first: what was put there before the stream ended is still to be taken.
        bool closed = _closed;
        ReceiveStatus status = _fromClient.TryTake(out record, out trace);
        return status == ReceiveStatus.Empty && closed ? ReceiveStatus.Closed : status;
    }

    public SendStatus TrySend(ReadOnlySpan<byte> record, in TraceContext trace)
    {
        Span<byte> room = Reserve(record.Length);
        if (room.IsEmpty)
            return _closed ? SendStatus.Closed : SendStatus.Full;
        record.CopyTo(room);
        return Commit(record.Length, trace);
    }

    public Span<byte> Reserve(int length) => _closed ? default : _toClient.Reserve(length);

    public SendStatus Commit(int length, in TraceContext trace) =>
        _closed ? SendStatus.Closed : _toClient.Commit(length, trace) ? SendStatus.Sent : SendStatus.Full;

    public void Flush()
    {
        _fromClient.Consumer.Release();
        if (_toClient.Producer.TakeConsumerDoorbell())
            Wake(_clientReady);
        if (_fromClient.Consumer.TakeProducerDoorbell())
            Wake(_roomMade);
    }

    public bool PrepareToSleep()
    {
        SysEpoll.Drain(_doorbell.Number);
        return _fromClient.Consumer.PrepareToSleep() && !_closed;
    }

    /// <summary>The loop lets go.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _released, 1) != 0)
            return;
        _closed = true;
        Wake(_clientReady);
        Wake(_roomMade);
        Leave();
    }

    // The stream's side: one reading task, one writing task.

    /// <summary>Puts a frame from the client before the loop, as soon as there is room.</summary>
    /// <param name="header">As it will stand in front of the frame.</param>
    /// <param name="frame">At most <see cref="FrameRecord.MaxFrameLength"/> octets.</param>
    /// <param name="trace">What the client says that the frame belongs to.</param>
    /// <returns>False: the link is closed.</returns>
    public async ValueTask<bool> PutFromClientAsync(VirtioNetHeader header, ReadOnlyMemory<byte> frame, TraceContext trace, CancellationToken cancellation)
    {
        while (!_closed)
        {
            if (TryPut(header, frame.Span, trace))
                return true;
            await _roomMade.WaitAsync(cancellation).ConfigureAwait(false);
        }
        return false;
    }

    /// <summary>Waits until the loop has taken all that the client sent, or the link is closed.</summary>
    public async Task DrainFromClientAsync(CancellationToken cancellation)
    {
        while (!_closed && !_fromClient.IsDrained)
        {
            FlushFromClient();
            await Task.Delay(2, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Wakes the loop if it sleeps. Call after a batch, and before waiting.</summary>
    public void FlushFromClient()
    {
        if (_fromClient.Producer.TakeConsumerDoorbell())
            SysEpoll.Signal(_doorbell.Number);
    }

    /// <summary>Takes the next record for the client, valid until the next call; false when there is none now.</summary>
    public bool TryTakeForClient(out ReadOnlySpan<byte> record, out TraceContext trace) => _toClient.TryTake(out record, out trace) == ReceiveStatus.Received;

    /// <summary>Waits until there is something for the client, or the link is closed.</summary>
    public async ValueTask WaitForClientAsync(CancellationToken cancellation)
    {
        while (!_closed && _toClient.Consumer.PrepareToSleep())
            await _clientReady.WaitAsync(cancellation).ConfigureAwait(false);
    }

    /// <summary>The stream has ended: no task of it uses the link from now on. The loop lets go when it sees it.</summary>
    public void CloseStream()
    {
        _closed = true;
        SysEpoll.Signal(_doorbell.Number);
        Leave();
    }

    private bool TryPut(in VirtioNetHeader header, ReadOnlySpan<byte> frame, in TraceContext trace)
    {
        int length = VirtioNetHeader.Length + frame.Length;
        Span<byte> room = _fromClient.Reserve(length);
        if (room.IsEmpty)
        {
            FlushFromClient();
            // Asking for the doorbell may find that room was just made.
            if (_fromClient.Producer.WaitForRoom())
                return false;
            room = _fromClient.Reserve(length);
            if (room.IsEmpty)
                return false;
        }
        header.Write(room);
        frame.CopyTo(room[VirtioNetHeader.Length..]);
        return _fromClient.Commit(length, trace);
    }

    private void Leave()
    {
        if (Interlocked.Decrement(ref _users) > 0)
            return;
        _toClient.Dispose();
        _fromClient.Dispose();
        _doorbell.Dispose();
    }

    private static void Wake(SemaphoreSlim semaphore)
    {
        // At one it has been told already; two that tell it at once are rare, and one of them is enough.
        if (semaphore.CurrentCount > 0)
            return;
        try
        {
            semaphore.Release();
        }
        catch (SemaphoreFullException)
        {
        }
    }
}
