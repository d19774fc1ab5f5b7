using System.Threading.Channels;
using VNetMesh.Dhcp.Protocol;

namespace VNetMesh.Dhcp.Leases;

/// <summary>
/// The thread that writes. What has come together while one write was on its way to the disk goes there with the next, in
/// one transaction: under load one fsync serves many clients. Order is kept.
/// </summary>
public sealed partial class StoreWriter : IDisposable
{
    private const int Capacity = 4096;
    private const int MaxBatch = 512;

    private readonly ILeaseStore _store;
    private readonly ILogger _logger;
    private readonly Channel<Item> _queue = Channel.CreateBounded<Item>(new BoundedChannelOptions(Capacity) { SingleReader = true });
    private readonly Thread _thread;
    private bool _failing;

    public StoreWriter(ILeaseStore store, ILogger logger)
    {
        _store = store;
        _logger = logger;
        _thread = new Thread(Run) { Name = "dhcp-store", IsBackground = true };
        _thread.Start();
    }

    /// <summary>Queues a write of leases.</summary>
    /// <param name="whenDone">Told on the writer's thread: null when it is on disk, else what went wrong.</param>
    /// <returns>False when the queue is full; nothing is written then, and nobody told.</returns>
    public bool TryWrite(LeaseWrite write, Action<IOException?>? whenDone) => _queue.Writer.TryWrite(new Item(write, null, whenDone));

    /// <summary>Runs something else on the store, in its turn.</summary>
    /// <exception cref="IOException">The store failed, or the queue is full.</exception>
    public Task<T> RunAsync<T>(Func<ILeaseStore, T> function)
    {
        var completion = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        T result = default!;
        void Tell(IOException? failure)
        {
            if (failure is null)
                completion.SetResult(result);
            else
                completion.SetException(failure);
        }
        if (!_queue.Writer.TryWrite(new Item(null, store => result = function(store), Tell)))
            Tell(new IOException("too many writes are waiting for the disk"));
        return completion.Task;
    }

    public Task RunAsync(Action<ILeaseStore> action) => RunAsync(store =>
    {
        action(store);
        return true;
    });

    /// <summary>Writes what is queued, and ends.</summary>
    public void Dispose()
    {
        _queue.Writer.TryComplete();
        _thread.Join(TimeSpan.FromSeconds(5));
    }

    private void Run()
    {
        var batch = new List<Item>(MaxBatch);
        ChannelReader<Item> reader = _queue.Reader;
        while (reader.WaitToReadAsync().AsTask().GetAwaiter().GetResult())
        {
            batch.Clear();
            while (batch.Count < MaxBatch && reader.TryPeek(out Item? next) && (next.Write is not null || batch.Count == 0))
            {
                reader.TryRead(out _);
                batch.Add(next);
                if (next.Write is null)
                    break;
            }
            IOException? failure = Write(batch);
            foreach (Item item in batch)
                item.WhenDone?.Invoke(failure);
        }
    }

    private IOException? Write(List<Item> batch)
    {
        try
        {
            if (batch[0].Action is { } action)
                action(_store);
            else
                _store.Write([.. batch.Select(item => item.Write!)]);
            if (_failing)
                LogWritesAgain();
            _failing = false;
            return null;
        }
        catch (Exception exception)
        {
            if (!_failing)
                LogCannotWrite(exception.Message);
            _failing = true;
            return exception as IOException ?? new IOException(exception.Message, exception);
        }
    }

    [LoggerMessage(LogLevel.Error, "Leases cannot be written, and none is granted: {Reason}")]
    private partial void LogCannotWrite(string reason);

    [LoggerMessage(LogLevel.Information, "Leases are written again")]
    private partial void LogWritesAgain();

    private sealed record Item(LeaseWrite? Write, Action<ILeaseStore>? Action, Action<IOException?>? WhenDone);
}
