using System.Net;
using System.Net.Sockets;
using VNetMesh.Cli.Demo;
using VNetMesh.Native;

namespace VNetMesh.Cli.Doctor;

/// <summary>Looks at the network as a guest sees it: from inside its namespace.</summary>
internal sealed class GuestNamespace(string path)
{
    public bool Exists => File.Exists(path);

    /// <summary>A command inside; for advice too.</summary>
    public string[] Command(params string[] command) => ["nsenter", "--net=" + path, .. command];

    public (int Code, string Output) Run(params string[] command)
    {
        (int code, string output, string error) = Shell.Try(Command(command));
        return (code, output + error);
    }

    /// <summary>Asks a nameserver for the root's nameservers (RFC 1035): any resolver knows them, or says that it does not.</summary>
    /// <returns>The response code; null: no answer within the time.</returns>
    public int? AskDns(IPAddress server, TimeSpan limit) => Inside(() =>
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = (int)limit.TotalMilliseconds };
        byte[] query = [(byte)Random.Shared.Next(256), (byte)Random.Shared.Next(256), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
        byte[] answer = new byte[1500];
        try
        {
            socket.Connect(server, 53);
            socket.Send(query);
            int length = socket.Receive(answer);
            return length >= 12 && answer[0] == query[0] && answer[1] == query[1] ? answer[3] & 0x0F : (int?)null;
        }
        catch (SocketException)
        {
            return null;
        }
    });

    /// <summary>Connects and hangs up.</summary>
    /// <returns>Why it failed; null when it did not.</returns>
    public SocketError? Dial(IPEndPoint to, TimeSpan limit) => Inside(() => DialFromHere(to, limit));

    public static SocketError? DialFromHere(IPEndPoint to, TimeSpan limit)
    {
        using var socket = new Socket(to.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        using var time = new CancellationTokenSource(limit);
        try
        {
            socket.ConnectAsync(to, time.Token).AsTask().GetAwaiter().GetResult();
            return null;
        }
        catch (SocketException exception)
        {
            return exception.SocketErrorCode;
        }
        catch (OperationCanceledException)
        {
            return SocketError.TimedOut;
        }
    }

    /// <summary>A thread of its own enters the namespace, and ends with what it was for. A socket stays where it was made.</summary>
    private T Inside<T>(Func<T> function)
    {
        T result = default!;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                using var handle = new FileDescriptor(Syscall.Check(Fcntl.open(path, Fcntl.O_RDONLY | Fcntl.O_CLOEXEC), $"open({path})"));
                Syscall.Check(Sched.setns(handle.Number, Sched.CLONE_NEWNET), $"setns({path})");
                result = function();
            }
            catch (Exception exception)
            {
                failure = exception;
            }
        });
        thread.Start();
        thread.Join();
        return failure is null ? result : throw failure;
    }
}
