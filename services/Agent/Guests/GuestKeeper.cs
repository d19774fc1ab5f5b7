using System.Diagnostics;
using VNetMesh.Agent.Devices;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Netlink;
using VNetMesh.Agent.Observability;

namespace VNetMesh.Agent.Guests;

/// <summary>A guest that is wanted, and what this process has of it.</summary>
public sealed class GuestRuntime(GuestSpec spec)
{
    public GuestSpec Spec { get; } = spec;

    /// <summary>Open while the namespace is there.</summary>
    public NetworkNamespace? Space { get; set; }

    public GuestView View { get; set; } = new(spec, GuestStatus.Starting, [], [], 0);

    /// <summary>The span from the DHCP client's start to the first address.</summary>
    internal Activity? Addressing { get; set; }

    internal long AddressingSince { get; set; }

    /// <summary>Of a VM with a TAP: a monitor has it open.</summary>
    internal bool HasVm { get; set; }
}

/// <summary>Brings one guest at a time in line: namespace, device, hand-off, DHCP client. Not for two threads at a time.</summary>
public sealed partial class GuestKeeper(ChangeJournal journal, HostAccess host, DeviceSet devices, DhcpClient clients, VmKeeper vms, VmTapKeeper taps, VmDoors doors, IFabric fabric, AgentMetrics metrics, TimeProvider time, ILogger<GuestKeeper> logger)
{
    /// <summary>Makes what must be there for the guest to exist at all: namespace and device.</summary>
    /// <exception cref="IOException">It cannot be made; the caller removes the guest.</exception>
    public void Make(GuestRuntime guest, NetworkSpec network)
    {
        if (guest.Spec.IsSocketVm)
        {
            doors.Ensure(guest.Spec);
            return;
        }
        NetworkNamespace space = EnsureSpace(guest);
        PortDevice device = devices.Ensure(guest.Spec.Name, guest.Spec.Port, space, guest.Spec.Interface, network.Mtu);
        if (guest.Spec.IsTapVm)
            taps.Reconcile(guest.Spec, space, device.Link, network.Mtu);
    }

    /// <param name="network">Null where it does not exist, or is not known (yet).</param>
    /// <param name="networksKnown">Whether the switch has told its networks.</param>
    public async Task ReconcileAsync(GuestRuntime guest, NetworkSpec? network, bool networksKnown, CancellationToken cancellation)
    {
        GuestSpec spec = guest.Spec;
        if (spec.IsSocketVm)
        {
            await vms.ReconcileAsync(guest, network, networksKnown, cancellation);
            return;
        }
        var conditions = new List<string>();
        int pid = 0;
        PortDevice? device = null;
        try
        {
            NetworkNamespace space = EnsureSpace(guest);
            device = network is not null
                ? devices.Ensure(spec.Name, spec.Port, space, spec.Interface, network.Mtu)
                : devices.Find(spec.Name, spec.Port, space, spec.Interface);
            if (network is null)
                conditions.Add(networksKnown ? $"the network networks/{spec.NetworkId} does not exist" : "the switch has not told its networks yet");
            else if (!await devices.ConnectAsync(device!, cancellation))
                conditions.Add(device!.Condition.Length > 0 ? device.Condition : "the switch is away");
            if (spec.IsTapVm)
                guest.HasVm = device is not null && network is not null && taps.Reconcile(spec, space, device.Link, network.Mtu);
            if (!spec.NoDhcp && device is not null)
                pid = EnsureClient(guest, space, device);
        }
        catch (IOException exception)
        {
            conditions.Add(exception.Message);
        }
        Observe(guest, device, conditions, pid);
    }

    /// <summary>Looks again at the address of a guest that waits for one.</summary>
    public void Refresh(GuestRuntime guest)
    {
        if (guest.View.Conditions.Count == 0 && devices.All.TryGetValue(guest.Spec.Name, out PortDevice? device))
            Observe(guest, device, [], guest.View.ClientPid);
    }

    /// <summary>Takes the guest off the host.</summary>
    /// <returns>What could not be undone; it stays in the journal.</returns>
    public async Task<IReadOnlyList<string>> RemoveAsync(GuestRuntime guest, CancellationToken cancellation)
    {
        guest.Addressing?.Dispose();
        var failures = new List<string>();
        if (guest.Spec.IsVm)
            Try(() => doors.Remove(guest.Spec));
        else
            Try(() => clients.Remove(guest.Spec));
        Try(() => devices.Drop(guest.Spec.Name, undo: true));
        await DeletePortAsync(guest.Spec.Port.Name, cancellation);
        guest.Space?.Dispose();
        guest.Space = null;
        failures.AddRange(journal.UndoAll(entry => entry.Change.Owner == guest.Spec.Name).Failures);
        return failures;

        void Try(Action action)
        {
            try
            {
                action();
            }
            catch (IOException exception)
            {
                failures.Add(exception.Message);
            }
        }
    }

    private NetworkNamespace EnsureSpace(GuestRuntime guest)
    {
        if (guest.Space is { } open && host.Namespaces.IsThere(open.Path, open.Identity))
            return open;
        if (guest.Space is not null)
            Vanished(guest);
        GuestSpec spec = guest.Spec;
        if (!spec.MakesNetns)
            return guest.Space = OpenExisting(spec);
        NetnsChange? made = journal.Of<NetnsChange>(spec.Name).Select(entry => entry.Change).FirstOrDefault();
        if (made is not null && !made.IsStillThere(host))
            throw new NamespaceNotFoundException(spec.Netns, "it was removed; remove the guest, and add it again if it is still wanted");
        if (made is null)
        {
            made = journal.Perform(new NetnsChange(spec.Name, NamespaceReference.NameOf(spec.Netns)!));
            LogMade(made.Target);
        }
        NetworkNamespace space = host.Namespaces.Open(made.Target);
        space.Run(() =>
        {
            using RtNetlink netlink = RtNetlink.Open();
            if (netlink.FindLink("lo") is { IsUp: false } loopback)
                netlink.SetUp(loopback.Index, up: true);
            if (spec.IsTapVm)
                VmTapChange.Quiet();
            return true;
        });
        return guest.Space = space;
    }

    private NetworkNamespace OpenExisting(GuestSpec spec)
    {
        string again = spec.Container.Length > 0
            ? $"the container {spec.Container} was stopped or restarted: when it runs, 'vnet guest add {spec.Id} --network {spec.NetworkId} --container {spec.Container}' plugs it in again"
            : "the process that it was of has ended: remove the guest, and add it again with the process that took its place";
        NetworkNamespace space;
        try
        {
            space = host.Namespaces.Open(spec.Netns);
        }
        catch (NamespaceNotFoundException) when (spec.NetnsIdentity.Length > 0)
        {
            throw new NamespaceNotFoundException(spec.Netns, again);
        }
        if (spec.NetnsIdentity.Length == 0 || space.Identity == spec.NetnsIdentity)
            return space;
        space.Dispose();
        throw new NamespaceNotFoundException(spec.Netns, again);
    }

    /// <summary>
    /// The path leads to the guest's namespace no more. The namespace itself may live on, nameless, for as long as
    /// something holds it, be it our own descriptors: all of them are let go.
    /// </summary>
    private void Vanished(GuestRuntime guest)
    {
        LogVanished(guest.Spec.Name, guest.Spec.Netns);
        clients.Stop(guest.Spec);
        devices.Drop(guest.Spec.Name, undo: true);
        guest.Space?.Dispose();
        guest.Space = null;
    }

    private int EnsureClient(GuestRuntime guest, NetworkNamespace space, PortDevice device)
    {
        // Before the first hand-off its first DISCOVER would be lost, and a second go by before the next.
        bool isStarted = guest.View.ClientPid != 0;
        if (!device.IsConnected && !isStarted && journal.Of<ProcessChange>(guest.Spec.Name).All(entry => !entry.Change.IsRunning))
            return 0;
        int pid = clients.Ensure(guest.Spec, space);
        if (pid == guest.View.ClientPid || device.Addresses().Count > 0)
            return pid;
        LogClient(guest.Spec.Name, pid);
        if (guest.Addressing is null)
        {
            guest.AddressingSince = time.GetTimestamp();
            Activity? current = Activity.Current;
            guest.Addressing = AgentTelemetry.Source.StartActivity("agent.guest.addressing");
            guest.Addressing?.SetTag("vnetmesh.guest", guest.Spec.Name);
            Activity.Current = current;
        }
        return pid;
    }

    private void Observe(GuestRuntime guest, PortDevice? device, List<string> conditions, int pid)
    {
        AddressInfo[] addresses = [];
        try
        {
            addresses = device is null ? [] : [.. device.Addresses()];
        }
        catch (IOException exception)
        {
            conditions.Add(exception.Message);
        }
        // The address of a lease is followed by routes and resolver: a guest without them is not ready.
        bool isAddressed = guest.Spec.IsVm ? guest.HasVm : guest.Spec.NoDhcp || addresses.Any(address => address.IsPermanent || clients.HasSet(guest.Spec, address.ToString()));
        GuestStatus status = conditions.Count > 0 ? GuestStatus.Degraded : isAddressed ? GuestStatus.Ready : GuestStatus.Starting;
        if (isAddressed && addresses.Length > 0 && pid != 0)
            Addressed(guest, addresses[0].ToString());
        if (status != guest.View.Status && status != GuestStatus.Starting)
            LogStatus(guest.Spec.Name, status, string.Join("; ", conditions));
        guest.View = new GuestView(guest.Spec, status, [.. addresses.Select(address => address.ToString())], conditions, pid) { Socket = guest.Spec.IsVm ? doors.PathOf(guest.Spec) : "" };
    }

    private void Addressed(GuestRuntime guest, string address)
    {
        clients.Succeeded(guest.Spec);
        if (guest.AddressingSince == 0)
            return;
        metrics.Addressed(time.GetElapsedTime(guest.AddressingSince));
        guest.AddressingSince = 0;
        guest.Addressing?.SetTag("vnetmesh.guest.address", address);
        guest.Addressing?.Dispose();
        guest.Addressing = null;
        LogAddressed(guest.Spec.Name, address);
    }

    private async Task DeletePortAsync(string port, CancellationToken cancellation)
    {
        try
        {
            if (fabric.IsReachable)
                await fabric.DeleteAsync(port, cancellation);
        }
        catch (FabricException exception)
        {
            // It is deleted when the switch lists it again.
            LogPortNotDeleted(port, exception.Message);
        }
    }

    [LoggerMessage(LogLevel.Information, "made the network namespace {Netns}")]
    private partial void LogMade(string netns);

    [LoggerMessage(LogLevel.Warning, "{Guest}: its network namespace {Netns} is gone")]
    private partial void LogVanished(string guest, string netns);

    [LoggerMessage(LogLevel.Information, "{Guest}: DHCP client {Pid} runs")]
    private partial void LogClient(string guest, int pid);

    [LoggerMessage(LogLevel.Information, "{Guest} has the address {Address}")]
    private partial void LogAddressed(string guest, string address);

    [LoggerMessage(LogLevel.Information, "{Guest} is {Status} {Conditions}")]
    private partial void LogStatus(string guest, GuestStatus status, string conditions);

    [LoggerMessage(LogLevel.Warning, "the port {Port} could not be deleted now: {Reason}")]
    private partial void LogPortNotDeleted(string port, string reason);
}
