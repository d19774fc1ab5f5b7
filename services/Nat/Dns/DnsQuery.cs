using System.Security.Cryptography;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Nat.Timing;

namespace VNetMesh.Nat.Dns;

/// <summary>One query of a guest's under way: asks server after server, each twice at most, then says SERVFAIL.</summary>
internal sealed class DnsQuery : IReadyHandler, ITimerOwner
{
    private const long TryMicroseconds = 2_000_000;
    private const long OnlyServerMicroseconds = 5_000_000;
    private const int Rounds = 2;
    private const int MaxTries = 6;

    private readonly GatewayContext _gateway;
    private readonly DnsProxy _proxy;
    private readonly byte[] _message;
    private readonly int _questionLength;
    private readonly List<HostEndpoint> _servers;
    private readonly LoopTimer _timer;
    private readonly long _started;
    private FileDescriptor? _socket;
    private EventLoop.Registration _registration;
    private ushort _id;
    private int _tries;

    public DnsQuery(GatewayContext gateway, DnsProxy proxy, Neighbour guest, ushort guestPort, ReadOnlySpan<byte> message, List<HostEndpoint> servers, long now)
    {
        _gateway = gateway;
        _proxy = proxy;
        Guest = guest;
        GuestPort = guestPort;
        GuestId = DnsMessage.Id(message);
        _message = message.ToArray();
        DnsMessage.TryReadQuery(message, out ReadOnlySpan<byte> question);
        _questionLength = question.Length;
        _servers = servers;
        _started = now;
        _timer = new LoopTimer(this);
    }

    public Neighbour Guest { get; }
    public ushort GuestPort { get; }
    public ushort GuestId { get; }

    private ReadOnlySpan<byte> Question => _message.AsSpan(DnsMessage.HeaderLength, _questionLength);

    public bool Asks(ReadOnlySpan<byte> question) => Question.SequenceEqual(question);

    public void Start(long now) => AskNext(now);

    public void OnTimer(long now) => AskNext(now);

    public void OnReady(uint events, long now)
    {
        for (int i = 0; i < 8 && _socket is not null; i++)
        {
            Span<byte> room = _gateway.Datagram;
            int length = HostSocket.Receive(_socket.Number, room);
            if (length == -NativeErrno.EAGAIN)
                return;
            if (length < 0)
            {
                // The server's host says that nobody listens there; no need to wait for the time-out.
                AskNext(now);
                return;
            }
            TakeAnswer(room[..length], now);
        }
    }

    public void Close()
    {
        CloseSocket();
        _gateway.Timers.Cancel(_timer);
        _proxy.Forget(this);
    }

    private void TakeAnswer(Span<byte> answer, long now)
    {
        if (!DnsMessage.IsAnswerTo(answer, _id, Question))
        {
            _gateway.Drops.Count(DropCause.DnsAnswerMismatch);
            return;
        }
        byte code = DnsMessage.ResponseCode(answer);
        // Another server may know better (as glibc's resolver does); the last one's word is passed on.
        if (code is DnsMessage.ServerFailure or DnsMessage.NotImplemented or DnsMessage.Refused && _tries < _servers.Count)
        {
            AskNext(now);
            return;
        }
        _proxy.Prefer(_servers[(_tries - 1) % _servers.Count], now);
        _gateway.Names.Learn(answer, now);
        DnsMessage.SetId(answer, GuestId);
        _gateway.Sender.SendUdp(Guest, _gateway.Settings.Address, DnsProxy.Port, GuestPort, answer);
        _gateway.Shared.Metrics.DnsAnswered(_gateway.Settings.NetworkId, "answered", now - _started);
        Close();
    }

    private void AskNext(long now)
    {
        CloseSocket();
        int most = Math.Min(_servers.Count * Rounds, MaxTries);
        while (_tries < most)
        {
            HostEndpoint server = _servers[_tries++ % _servers.Count];
            if (!TryAsk(server))
                continue;
            _gateway.Timers.Set(_timer, now + (_servers.Count == 1 ? OnlyServerMicroseconds : TryMicroseconds));
            return;
        }
        _proxy.Fail(Guest, GuestPort, _message, Question, DnsMessage.ServerFailure);
        _gateway.Shared.Metrics.DnsAnswered(_gateway.Settings.NetworkId, _servers.Count == 0 ? "no_resolver" : "no_answer", now - _started);
        Close();
    }

    private bool TryAsk(HostEndpoint server)
    {
        FileDescriptor? socket = HostSocket.Open(server.Family, SysSocket.SOCK_DGRAM, 0, out _);
        if (socket is null)
        {
            _gateway.Drops.Count(DropCause.SocketUnavailable);
            return false;
        }
        Span<byte> id = stackalloc byte[2];
        RandomNumberGenerator.Fill(id);
        _id = DnsMessage.Id(id);
        DnsMessage.SetId(_message, _id);
        bool sent = HostSocket.Connect(socket.Number, server) == 0 && HostSocket.Send(socket.Number, _message) >= 0;
        DnsMessage.SetId(_message, GuestId);
        if (!sent)
        {
            socket.Dispose();
            return false;
        }
        _socket = socket;
        _registration = _gateway.Loop.Register(socket.Number, SysEpoll.EPOLLIN, this);
        return true;
    }

    private void CloseSocket()
    {
        if (_socket is null)
            return;
        _gateway.Loop.Unregister(_registration);
        _socket.Dispose();
        _socket = null;
    }
}
