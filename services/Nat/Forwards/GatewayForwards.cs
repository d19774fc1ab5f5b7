using VNetMesh.Native;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Nat.Timing;

namespace VNetMesh.Nat.Forwards;

/// <summary>The listeners of one gateway's forwards. A rule whose port is taken at a start asks again every few seconds.</summary>
internal sealed class GatewayForwards : ITimerOwner
{
    private const long RetryMicroseconds = 5_000_000;

    private readonly GatewayContext _gateway;
    private readonly TcpFlowTable _tcp;
    private readonly Dictionary<string, Entry> _entries = new(StringComparer.Ordinal);
    private readonly LoopTimer _timer;

    public GatewayForwards(GatewayContext gateway, TcpFlowTable tcp, UdpForwardFlows udp)
    {
        _gateway = gateway;
        _tcp = tcp;
        Udp = udp;
        _timer = new LoopTimer(this);
    }

    private UdpForwardFlows Udp { get; }

    /// <summary>Opens a rule's listener.</summary>
    /// <param name="mustListen">Throw when the host refuses; else keep the rule and try again.</param>
    /// <exception cref="ListenRefusedException">The host refused.</exception>
    public void Add(ForwardRule rule, bool mustListen)
    {
        var entry = new Entry(rule);
        TryOpen(entry);
        if (entry.Listener is null && mustListen)
            throw new ListenRefusedException(entry.Condition);
        _entries[rule.Id] = entry;
        if (entry.Listener is null)
            _gateway.Timers.Set(_timer, Links.EventLoop.Now + RetryMicroseconds);
    }

    /// <summary>Closes a rule's listener. Flows that came by it live on.</summary>
    public void Remove(string id)
    {
        if (_entries.Remove(id, out Entry? entry))
            entry.Listener?.Dispose();
    }

    public ForwardStatus? Status(string id) =>
        _entries.TryGetValue(id, out Entry? entry) ? new ForwardStatus(entry.Rule, entry.Listener is not null, entry.Condition) : null;

    public void Close()
    {
        foreach (Entry entry in _entries.Values)
            entry.Listener?.Dispose();
        _entries.Clear();
        _gateway.Timers.Cancel(_timer);
    }

    void ITimerOwner.OnTimer(long now)
    {
        bool left = false;
        foreach (Entry entry in _entries.Values)
        {
            if (entry.Listener is null)
                TryOpen(entry);
            left |= entry.Listener is null;
        }
        if (left)
            _gateway.Timers.Set(_timer, now + RetryMicroseconds);
    }

    private void TryOpen(Entry entry)
    {
        ForwardRule rule = entry.Rule;
        bool tcp = rule.Protocol == FlowProtocol.Tcp;
        FileDescriptor? socket = HostSocket.Open(SysSocket.AF_INET, tcp ? SysSocket.SOCK_STREAM : SysSocket.SOCK_DGRAM, 0, out int errno);
        if (socket is not null)
        {
            if (tcp)
                _ = SysSocket.SetOption(socket.Number, SysSocket.SOL_SOCKET, SysSocket.SO_REUSEADDR, 1);
            errno = HostSocket.Bind(socket.Number, rule.ListenAddress, rule.ListenPort);
            if (errno == 0 && tcp && SysSocket.listen(socket.Number, TcpForwardListener.Backlog) != 0)
                errno = Syscall.Errno;
        }
        if (socket is null || errno != 0)
        {
            socket?.Dispose();
            entry.Condition = Explain(rule, errno);
            return;
        }
        entry.Condition = "";
        entry.Listener = tcp ? new TcpForwardListener(_gateway, _tcp, rule, socket) : new UdpForwardListener(_gateway, Udp, rule, socket);
    }

    private static string Explain(ForwardRule rule, int errno)
    {
        string where = $"{rule.ListenAddress}:{rule.ListenPort}";
        return errno switch
        {
            NativeErrno.EADDRINUSE => $"{where} is in use on the host; choose another port, or stop what listens there",
            NativeErrno.EACCES or NativeErrno.EPERM => $"the host does not let nat listen on {where}; choose a port of 1024 or above, or lower net.ipv4.ip_unprivileged_port_start",
            NativeErrno.EADDRNOTAVAIL => $"{rule.ListenAddress} is not an address of the host",
            _ => $"{where} cannot be listened on: {new System.ComponentModel.Win32Exception(errno).Message}",
        };
    }

    private sealed class Entry(ForwardRule rule)
    {
        public ForwardRule Rule { get; } = rule;
        public IDisposable? Listener { get; set; }
        public string Condition { get; set; } = "";
    }
}
