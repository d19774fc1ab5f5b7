using System.Threading.Channels;
using Grpc.Net.Client;
using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Hosting;
using VNetMesh.V1;

namespace VNetMesh.Links.Tests;

[Collection(CountsDescriptors.Name)]
public sealed class NetworkWatcherTests : IAsyncLifetime
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);
    private readonly FakeSwitch _switch = new();
    private readonly Channel<string> _told = Channel.CreateUnbounded<string>();
    private readonly CancellationTokenSource _stop = new();
    private GrpcChannel? _channel;
    private Task _run = Task.CompletedTask;
    private int _running;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync()
    {
        _channel = UnixChannel.Create(_switch.Socket);
        return ValueTask.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _run.WaitAsync(Patience, CancellationToken.None);
        _channel!.Dispose();
        await _switch.DisposeAsync();
        _stop.Dispose();
    }

    [Fact]
    public async Task Tells_the_snapshot_and_every_change_as_the_whole_list()
    {
        Run();
        await Task.Delay(100, Cancellation);
        await _switch.StartAsync();
        Snapshot("t1", "vmnet8", "vmnet1");
        Assert.Equal("vmnet1 vmnet8", await NextAsync());
        Change("t2", ChangeType.Created, "lab");
        Assert.Equal("lab vmnet1 vmnet8", await NextAsync());
        Change("t3", ChangeType.Deleted, "vmnet1");
        Assert.Equal("lab vmnet8", await NextAsync());
    }

    [Fact]
    public async Task An_empty_list_is_told_too()
    {
        await _switch.StartAsync();
        Run();
        Snapshot("t1");
        Assert.Equal("", await NextAsync());
    }

    [Fact]
    public async Task While_the_switch_is_away_nothing_is_told_and_then_the_watch_is_resumed()
    {
        await _switch.StartAsync();
        Run();
        Snapshot("t1", "vmnet8");
        Assert.Equal("vmnet8", await NextAsync());
        await _switch.StopAsync();
        await Task.Delay(300, Cancellation);
        Assert.False(_told.Reader.TryPeek(out _));
        await _switch.StartAsync();
        Change("t2", ChangeType.Created, "lab");
        Assert.Equal("lab vmnet8", await NextAsync());
        Assert.Equal(["", "t1"], _switch.ResumeTokens);
        // A new snapshot replaces all.
        Snapshot("t9", "other");
        Assert.Equal("other", await NextAsync());
    }

    [Fact]
    public async Task Changes_that_come_while_one_is_handled_are_put_together()
    {
        await _switch.StartAsync();
        var gate = new SemaphoreSlim(0);
        Run(() => gate.WaitAsync(Cancellation));
        Snapshot("t1", "a");
        for (int i = 0; i < 50; i++)
            Change("t2", ChangeType.Created, $"n{i}");
        await Task.Delay(200, Cancellation);
        gate.Release(100);
        string last = await NextAsync();
        int calls = 1;
        while (last.Split(' ').Length < 51)
        {
            last = await NextAsync();
            calls++;
        }
        Assert.InRange(calls, 1, 3);
    }

    [Fact]
    public async Task A_list_that_could_not_be_handled_is_told_again()
    {
        await _switch.StartAsync();
        int failures = 2;
        Run(() => failures-- > 0 ? throw new IOException("not yet") : Task.CompletedTask);
        Snapshot("t1", "vmnet8");
        Assert.Equal("vmnet8", await NextAsync());
        Assert.Equal(-1, failures);
    }

    private void Run(Func<Task>? before = null)
    {
        var watcher = new NetworkWatcher(_channel!, NullLogger.Instance);
        _run = Task.Run(() => watcher.RunAsync(async (networks, _) =>
        {
            Assert.Equal(1, Interlocked.Increment(ref _running));
            try
            {
                await (before?.Invoke() ?? Task.CompletedTask);
                _told.Writer.TryWrite(string.Join(' ', networks.Select(network => network.Name["networks/".Length..])));
            }
            finally
            {
                Interlocked.Decrement(ref _running);
            }
        }, _stop.Token), CancellationToken.None);
    }

    private void Snapshot(string token, params string[] ids) => _switch.Networks.Writer.TryWrite(new WatchNetworksResponse
    {
        Snapshot = new NetworkSnapshot { Networks = { ids.Select(id => new Network { Name = "networks/" + id }) } },
        ResumeToken = token,
    });

    private void Change(string token, ChangeType type, string id) => _switch.Networks.Writer.TryWrite(new WatchNetworksResponse
    {
        Change = new NetworkChange { Type = type, Network = new Network { Name = "networks/" + id } },
        ResumeToken = token,
    });

    private async Task<string> NextAsync() => await _told.Reader.ReadAsync(Cancellation).AsTask().WaitAsync(Patience, Cancellation);
}
