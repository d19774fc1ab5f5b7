using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Nat.Timing;

namespace VNetMesh.Nat.Forwards;

/// <summary>Takes clients' connections and opens each to the guest.</summary>
internal sealed unsafe class TcpForwardListener : IReadyHandler, ITimerOwner, IDisposable
{
    public const int Backlog = 512;
    private const int AcceptBatch = 32;
    private const long PauseMicroseconds = 100_000;

    private readonly GatewayContext _gateway;
    private readonly TcpFlowTable _tcp;
    private readonly ForwardRule _rule;
    private readonly FileDescriptor _socket;
    private readonly EventLoop.Registration _registration;
    private readonly LoopTimer _timer;

    public TcpForwardListener(GatewayContext gateway, TcpFlowTable tcp, ForwardRule rule, FileDescriptor socket)
    {
        _gateway = gateway;
        _tcp = tcp;
        _rule = rule;
        _socket = socket;
        _timer = new LoopTimer(this);
        _registration = gateway.Loop.Register(socket.Number, SysEpoll.EPOLLIN, this);
    }

    public void OnReady(uint events, long now)
    {
        for (int i = 0; i < AcceptBatch; i++)
        {
            SysSocket.sockaddr_in client;
            uint length = (uint)sizeof(SysSocket.sockaddr_in);
            int fd = SysSocket.accept4(_socket.Number, &client, &length, SysSocket.SOCK_NONBLOCK | SysSocket.SOCK_CLOEXEC);
            if (fd < 0)
            {
                int errno = Syscall.Errno;
                if (errno == NativeErrno.EAGAIN)
                    return;
                // No descriptors: the client stays in the backlog, and the loop must not spin on it.
                if (errno is NativeErrno.EMFILE or NativeErrno.ENOMEM or NativeErrno.ENOBUFS)
                {
                    _gateway.Drops.Count(DropCause.SocketUnavailable);
                    _gateway.Loop.Modify(_registration, 0);
                    _gateway.Timers.Set(_timer, now + PauseMicroseconds);
                    return;
                }
                continue;
            }
            _tcp.Accept(new FileDescriptor(fd), Ipv4SocketAddress.AddressOf(client), Ipv4SocketAddress.PortOf(client), _rule.GuestAddress, (ushort)_rule.GuestPort, now);
        }
    }

    public void OnTimer(long now) => _gateway.Loop.Modify(_registration, SysEpoll.EPOLLIN);

    public void Dispose()
    {
        _gateway.Timers.Cancel(_timer);
        _gateway.Loop.Unregister(_registration);
        _socket.Dispose();
    }
}
