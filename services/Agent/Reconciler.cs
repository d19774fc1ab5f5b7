using System.Diagnostics;
using System.Threading.Channels;
using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Egress;
using VNetMesh.Agent.Guests;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Observability;
using VNetMesh.Agent.Uplinks;

namespace VNetMesh.Agent;

/// <summary>A device as it is told of.</summary>
/// <param name="Netns">Empty: the host's own.</param>
public sealed record DeviceView(PortSpec Port, string Interface, string Netns, string Mac, IReadOnlyList<string> Addresses, uint Mtu, bool IsConnected, string Condition);

// THEORY OF OPERATION
//
// The agent owns the devices of the fabric on this host: it makes them, plugs them into the switch, and takes them away. It
// never reads a frame. Two truths decide what must be there: the switch's registry says which networks exist, and the
// agent's own database says which guests are wanted. The Reconciler brings the host in line with both; it looks at what is,
// not at what happened, so that after the death of any process, in any order, the next pass puts right what is left.
//
// One thread of control. All that changes state runs in one loop: what clients ask (CreateGuest, DeleteGuest, ReleaseAll),
// what the switch tells (networks, ports), and the passes. Readers get copies that are published after each pass.
//
//   what comes                        what is done
//   a client's call                   run in the loop, then a pass
//   networks (snapshot or change)     a pass: adapters made, re-addressed, removed; subnets that the host routes moved on
//   ports (snapshot)                  devices whose port is not up are handed over again; ports of ours that nobody wants are deleted
//   a port is down or deleted         its device is handed over again
//   the switch is away                devices stay, with their queues; nothing is torn down
//   every second                      a pass: namespaces and devices that vanished, DHCP clients that died, hand-offs that failed
//   every 50 ms                       only while a guest waits for its address: a look at its addresses
//
// A device's life:
//   wanted -> in the journal -> made (persistent TAP, alias "vnetmesh PORT") -> journal: done -> handed over -> connected
//   kill -9 of the agent     -> its next start finds it by the journal, checks the alias, and adopts it. Where the switch has
//                               its queue still, a second queue is opened and set aside, and not a frame is lost.
//   kill -9 of the switch    -> its port is gone from the ports' snapshot: registered and handed over again
//   kill -9 of both          -> the TAP is persistent: a new queue is opened and handed over
//   its guest's namespace is
//   removed                  -> the DHCP client is stopped, the device let go, the guest degraded
//   removed, or released     -> undone by the journal, last change first
//
// The journal (HostChanges/) has every change of the host before it is made. At start: what was about to be made is undone, what
// belongs to a guest that is not wanted is undone, the rest is adopted. After a restart of the machine what ended with it is
// struck out. SIGTERM leaves all as it is (a supervisor restarts the agent), unless VNETMESH_RELEASE_ON_STOP says otherwise
// (containers); ReleaseAll, or `vnetmesh-agent release`, gives the host back.

/// <summary>Brings devices and guests in line with what the switch and the database say.</summary>
public sealed partial class Reconciler(ChangeJournal journal, HostAccess host, GuestStore store, GuestKeeper keeper, VmKeeper vms, VmDoors doors, DeviceSet devices, HostAdapters adapters, UplinkKeeper uplinks, EgressKeeper egress, PingGroups pings, GuestFeed feed, IFabric fabric, AgentMetrics metrics, TimeProvider time, ILogger<Reconciler> logger)
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan QuickPeriod = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan HurriedFor = TimeSpan.FromSeconds(30);
    private readonly Channel<Func<Task>> _inbox = Channel.CreateBounded<Func<Task>>(1024);
    private readonly SortedDictionary<string, GuestRuntime> _guests = new(StringComparer.Ordinal);
    private IReadOnlyDictionary<string, NetworkSpec>? _networks;
    private HashSet<string> _portsOfOurs = [];
    private bool _released;

    /// <summary>Runs a function in the loop, followed by a pass.</summary>
    public async Task<T> RunAsync<T>(Func<Task<T>> function, CancellationToken cancellation)
    {
        var done = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        await _inbox.Writer.WriteAsync(async () =>
        {
            try
            {
                done.SetResult(await function());
            }
            catch (Exception exception)
            {
                done.SetException(exception);
            }
        }, cancellation);
        return await done.Task.WaitAsync(cancellation);
    }

    /// <summary>Makes a guest. Its address may still be on its way: see <see cref="GuestFeed"/>.</summary>
    /// <exception cref="GuestException">It cannot be made.</exception>
    public Task<GuestView> CreateGuestAsync(GuestDraft draft, ActivityContext parent, CancellationToken cancellation) => RunAsync(async () =>
    {
        using Activity? activity = AgentTelemetry.Source.StartActivity("agent.guest.create", ActivityKind.Internal, parent);
        GuestSpec spec = GuestPlanner.Complete(draft, time.GetUtcNow());
        activity?.SetTag("vnetmesh.guest", spec.Name);
        NetworkSpec network = Admit(spec);
        spec = Pin(spec);
        var guest = new GuestRuntime(spec);
        store.Save(spec);
        try
        {
            keeper.Make(guest, network);
        }
        catch (Exception exception)
        {
            store.Delete(spec.Id);
            await keeper.RemoveAsync(guest, CancellationToken.None);
            activity?.SetStatus(ActivityStatusCode.Error, exception.Message);
            throw exception is IOException refusal ? Explain(refusal) : exception;
        }
        _guests.Add(spec.Id, guest);
        await keeper.ReconcileAsync(guest, network, networksKnown: true, CancellationToken.None);
        Publish();
        return guest.View;
    }, cancellation);

    /// <exception cref="GuestException">There is no such guest.</exception>
    public Task<bool> DeleteGuestAsync(string id, CancellationToken cancellation) => RunAsync(async () =>
    {
        if (!_guests.Remove(id, out GuestRuntime? guest))
            throw GuestException.NotFound(id);
        store.Delete(id);
        foreach (string failure in await keeper.RemoveAsync(guest, CancellationToken.None))
            LogUndoFailed(failure);
        LogDeleted(guest.Spec.Name);
        Publish();
        return true;
    }, cancellation);

    /// <summary>Gives the host back: no guest, no device, no change is left, and none is made until the next start.</summary>
    public Task<(int Undone, IReadOnlyList<string> Failures)> ReleaseAllAsync(CancellationToken cancellation) => RunAsync(() =>
    {
        store.Clear();
        return GiveBackAsync();
    }, cancellation);

    /// <summary>
    /// Gives the host back at the end of the process, when the loop has ended; the next start makes the guests anew. For an agent
    /// that is stopped when it is not wanted any more, and not only to be started again: in a container.
    /// </summary>
    public Task ReleaseHostAsync() => GiveBackAsync();

    private async Task<(int Undone, IReadOnlyList<string> Failures)> GiveBackAsync()
    {
        _released = true;
        int before = journal.Entries.Count;
        foreach (GuestRuntime guest in _guests.Values)
            await keeper.RemoveAsync(guest, CancellationToken.None);
        _guests.Clear();
        await uplinks.StopAsync();
        egress.Release();
        foreach (PortDevice device in devices.All.Values.ToList())
            await DeletePortAsync(device.Port.Name);
        devices.Dispose();
        IReadOnlyList<string> failures = journal.UndoAll(_ => true).Failures;
        int undone = before - journal.Entries.Count;
        LogReleased(undone, failures.Count);
        Publish();
        return (undone, failures);
    }

    public Task<IReadOnlyList<JournalEntry>> ListChangesAsync(CancellationToken cancellation) => RunAsync(() => Task.FromResult(journal.Entries), cancellation);

    public Task<IReadOnlyList<DeviceView>> ListDevicesAsync(CancellationToken cancellation) => RunAsync(() => Task.FromResult<IReadOnlyList<DeviceView>>([.. DeviceViews()]), cancellation);

    public Task<IReadOnlyList<EgressStatus>> ListEgressAsync(CancellationToken cancellation) => RunAsync(() => Task.FromResult(egress.Statuses), cancellation);

    public Task<IReadOnlyList<UplinkStatus>> ListUplinksAsync(CancellationToken cancellation) => RunAsync(() => Task.FromResult(uplinks.Statuses), cancellation);

    /// <summary>The switch has told its networks: all of them.</summary>
    public Task NetworksAreAsync(IReadOnlyCollection<NetworkSpec> networks, CancellationToken cancellation) => RunAsync(() =>
    {
        _networks = networks.ToDictionary(network => network.Id, StringComparer.Ordinal);
        return Task.FromResult(true);
    }, cancellation);

    /// <summary>The switch has told its ports: all that the agent registered, and those of them that are up.</summary>
    /// <param name="taken">Called when they are taken in, before the pass that follows.</param>
    public Task PortsAreAsync(IReadOnlySet<string> ours, IReadOnlySet<string> up, Action taken, CancellationToken cancellation) => RunAsync(() =>
    {
        _portsOfOurs = [.. ours];
        devices.ObserveAll(up);
        vms.ObserveAll(up);
        taken();
        return Task.FromResult(true);
    }, cancellation);

    /// <summary>A port of the agent's is up, or is down or deleted.</summary>
    public Task PortIsAsync(string port, bool isUp, CancellationToken cancellation) => RunAsync(() =>
    {
        devices.ObserveOne(port, isUp);
        vms.ObserveOne(port, isUp);
        return Task.FromResult(true);
    }, cancellation);

    public Task FabricIsAwayAsync(CancellationToken cancellation) => RunAsync(() =>
    {
        devices.ObserveNothing();
        vms.ObserveNothing();
        adapters.ForgetChoices();
        return Task.FromResult(true);
    }, cancellation);

    /// <summary>The loop. Devices stay as they are when it ends.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        Start();
        // A full inbox is as good: a pass follows what is in it.
        doors.Woken += () => _inbox.Writer.TryWrite(() => Task.CompletedTask);
        while (!cancellation.IsCancellationRequested)
        {
            long start = time.GetTimestamp();
            await PassAsync(cancellation);
            metrics.Reconciled(time.GetElapsedTime(start));
            Publish();
            await WaitAsync(cancellation);
        }
    }

    private void Start()
    {
        string boot = File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim();
        if (store.SwapFact("boot_id", boot) is { } earlier && earlier != boot)
        {
            foreach (JournalEntry entry in journal.Entries.Where(entry => entry.Change.EndsWithBoot))
                journal.Forget(entry.Id);
        }
        foreach (GuestSpec spec in store.List())
            _guests.Add(spec.Id, new GuestRuntime(spec));
        (int undone, IReadOnlyList<string> failures) = journal.UndoAll(entry => !entry.Done);
        foreach (string failure in failures)
            LogUndoFailed(failure);
        LogStarted(_guests.Count, journal.Entries.Count, undone, host.Namespaces.Source);
    }

    /// <summary>Waits for the next second, or for something to do, which is done; meanwhile looks for addresses.</summary>
    private async Task WaitAsync(CancellationToken cancellation)
    {
        long start = time.GetTimestamp();
        try
        {
            while (time.GetElapsedTime(start) < Period)
            {
                bool isHurried = _guests.Values.Any(IsAwaited);
                using var tick = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
                tick.CancelAfter(isHurried ? QuickPeriod : Period - time.GetElapsedTime(start) is { Ticks: > 0 } rest ? rest : TimeSpan.FromMilliseconds(1));
                try
                {
                    Func<Task> work = await _inbox.Reader.ReadAsync(tick.Token);
                    do
                        await work();
                    while (_inbox.Reader.TryRead(out work!));
                    return;
                }
                catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
                {
                    foreach (GuestRuntime guest in _guests.Values.Where(IsAwaited))
                        keeper.Refresh(guest);
                    Publish();
                }
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The loop's condition ends it.
        }
    }

    /// <summary>Its address may come at any moment. A server that has not answered for so long is looked for once a second.</summary>
    private bool IsAwaited(GuestRuntime guest) =>
        guest.View.Status == GuestStatus.Starting && guest.AddressingSince != 0 && time.GetElapsedTime(guest.AddressingSince) < HurriedFor;

    private async Task PassAsync(CancellationToken cancellation)
    {
        if (_released)
            return;
        try
        {
            foreach (string failure in journal.UndoAll(IsUnwanted).Failures)
                LogUndoFailed(failure);
            if (_networks is not null)
            {
                await adapters.ReconcileAsync([.. _networks.Values], cancellation);
                egress.Reconcile([.. _networks.Values], AdapterNames());
                await uplinks.ReconcileAsync([.. _networks.Values], cancellation);
                pings.Reconcile(_networks.Values.Any(network => network.IsNat));
            }
            foreach (GuestRuntime guest in _guests.Values.ToList())
                await keeper.ReconcileAsync(guest, _networks?.GetValueOrDefault(guest.Spec.NetworkId), _networks is not null, cancellation);
            await DeleteStrayPortsAsync();
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            LogPassFailed(exception);
        }
    }

    private HashSet<string> AdapterNames() => [.. devices.All.Values.Where(device => device.Port.Role == PortRole.Host).Select(device => device.Link.Interface)];

    private bool IsUnwanted(JournalEntry entry)
    {
        const string Guests = "guests/";
        return entry.Change.Owner.StartsWith(Guests, StringComparison.Ordinal) && !_guests.ContainsKey(entry.Change.Owner[Guests.Length..]);
    }

    private async Task DeleteStrayPortsAsync()
    {
        if (_networks is null || !fabric.IsReachable)
            return;
        HashSet<string> wanted = [.. _guests.Values.Select(guest => guest.Spec.Port.Name)];
        wanted.UnionWith(_networks.Values.Where(network => network.HostAddress is not null).Select(network => PortSpec.NameOf(network.Id, PortSpec.HostAdapterId)));
        wanted.UnionWith(uplinks.Ports);
        foreach (string port in _portsOfOurs.Where(port => !wanted.Contains(port)).ToList())
            await DeletePortAsync(port);
    }

    private async Task DeletePortAsync(string port)
    {
        try
        {
            if (fabric.IsReachable)
                await fabric.DeleteAsync(port, CancellationToken.None);
            _portsOfOurs.Remove(port);
        }
        catch (FabricException exception)
        {
            LogPortNotDeleted(port, exception.Message);
        }
    }

    /// <exception cref="GuestException">It may not be made.</exception>
    private NetworkSpec Admit(GuestSpec spec)
    {
        if (_released)
            throw new GuestException(GuestProblem.Unavailable, "AGENT_RELEASED", "the agent has given the host back and makes nothing until it is started again: run 'vnet up'");
        if (_guests.ContainsKey(spec.Id))
            throw new GuestException(GuestProblem.AlreadyExists, "GUEST_EXISTS", $"there is a guest '{spec.Id}' already");
        if (_networks is null || !fabric.IsReachable)
            throw new GuestException(GuestProblem.Unavailable, "SWITCH_UNAVAILABLE", "the switch does not answer: see 'vnet status'");
        if (!_networks.TryGetValue(spec.NetworkId, out NetworkSpec? network))
            throw new GuestException(GuestProblem.NotFound, "NETWORK_NOT_FOUND", $"there is no network 'networks/{spec.NetworkId}': see 'vnet network ls'");
        if (!spec.NoDhcp && DhcpClient.FindProgram() is null)
            throw new GuestException(GuestProblem.Precondition, "DHCP_CLIENT_MISSING", DhcpClient.MissingProgram);
        if (spec.MakesNetns || spec.IsVm)
            return network;
        try
        {
            using Namespaces.NetworkNamespace space = host.Namespaces.Open(spec.Netns);
            return space.Identity != Namespaces.HostNamespaces.OwnIdentity()
                ? network
                : throw GuestException.Invalid("NETNS_INVALID", $"{spec.Netns} is the host's own network namespace: a guest cannot be in it");
        }
        catch (Namespaces.NamespaceNotFoundException exception)
        {
            throw Explain(exception);
        }
    }

    /// <summary>Notes which namespace a process id stands for now.</summary>
    private GuestSpec Pin(GuestSpec spec)
    {
        if (!spec.Netns.StartsWith("/proc/", StringComparison.Ordinal))
            return spec;
        try
        {
            using Namespaces.NetworkNamespace space = host.Namespaces.Open(spec.Netns);
            return spec with { NetnsIdentity = space.Identity };
        }
        catch (Namespaces.NamespaceNotFoundException exception)
        {
            throw Explain(exception);
        }
    }

    private static GuestException Explain(IOException refusal) => refusal switch
    {
        NetnsExistsException netns => new GuestException(GuestProblem.AlreadyExists, "NETNS_EXISTS", $"{netns.Message}: use it with --netns {netns.Name}, or choose another name"),
        InterfaceExistsException => new GuestException(GuestProblem.AlreadyExists, "INTERFACE_EXISTS", $"{refusal.Message}: choose another name for the interface"),
        Namespaces.NamespaceNotFoundException => new GuestException(GuestProblem.NotFound, "NETNS_NOT_FOUND", refusal.Message),
        _ => new GuestException(GuestProblem.Precondition, "HOST_REFUSED", refusal.Message),
    };

    private void Publish()
    {
        feed.Publish(_guests.Values.Select(guest => guest.View));
        int ready = _guests.Values.Count(guest => guest.View.Status == GuestStatus.Ready);
        metrics.Count(ready, _guests.Count - ready, devices.All.Count, journal.Entries.Count);
    }

    private IEnumerable<DeviceView> DeviceViews()
    {
        foreach ((string owner, PortDevice device) in devices.All)
        {
            string condition = adapters.Conditions.GetValueOrDefault(owner) ?? (device.IsConnected ? "" : device.Condition.Length > 0 ? device.Condition : "the switch is away");
            if (device.Look() is { } link)
                yield return new DeviceView(device.Port, link.Name, device.Link.Netns, link.Mac.ToString(), [.. device.Addresses().Select(address => address.ToString())], link.Mtu, device.IsConnected, condition);
            else
                yield return new DeviceView(device.Port, device.Link.Interface, device.Link.Netns, device.Link.Mac, [], device.Mtu, false, "the device is gone");
        }
        foreach ((string owner, string condition) in adapters.Conditions.Where(pair => !devices.All.ContainsKey(pair.Key)))
        {
            string id = owner["networks/".Length..];
            yield return new DeviceView(new PortSpec(id, PortSpec.HostAdapterId, PortRole.Host, default), id, "", "", [], 0, false, condition);
        }
    }

    [LoggerMessage(LogLevel.Information, "started with {Guests} guests wanted and {Changes} changes of the host to adopt, {Undone} undone; namespaces are those of {Source}")]
    private partial void LogStarted(int guests, int changes, int undone, string source);

    [LoggerMessage(LogLevel.Information, "{Guest} is deleted")]
    private partial void LogDeleted(string guest);

    [LoggerMessage(LogLevel.Information, "gave the host back: {Undone} changes undone, {Failed} could not be")]
    private partial void LogReleased(int undone, int failed);

    [LoggerMessage(LogLevel.Warning, "could not be undone, trying again: {Failure}")]
    private partial void LogUndoFailed(string failure);

    [LoggerMessage(LogLevel.Warning, "the port {Port} could not be deleted now: {Reason}")]
    private partial void LogPortNotDeleted(string port, string reason);

    [LoggerMessage(LogLevel.Error, "a pass failed, trying again")]
    private partial void LogPassFailed(Exception exception);
}
