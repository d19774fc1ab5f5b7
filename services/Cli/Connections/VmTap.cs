using System.Text;
using VNetMesh.Links;
using VNetMesh.Native;

namespace VNetMesh.Cli.Connections;

/// <summary>Asks the agent for a VM's TAP, at the VM's socket.</summary>
internal static unsafe class VmTap
{
    /// <returns>The TAP, open; closed by exec.</returns>
    /// <exception cref="CliException">It is not given.</exception>
    public static FileDescriptor Ask(string vm, string path)
    {
        using FileDescriptor socket = Connect(path);
        Span<byte> answer = stackalloc byte[2048];
        var descriptors = new FileDescriptor[1];
        int length;
        int count;
        try
        {
            length = DescriptorMessage.Receive(socket.Number, answer, descriptors, out count);
        }
        catch (SyscallException exception)
        {
            throw new CliException(ExitCode.Failed, $"the agent did not give the VM's TAP: {exception.Message}; see: vnet log show agent");
        }
        if (count == 1)
            return descriptors[0];
        throw new CliException(ExitCode.Refused, length == 0 ? "the agent closed the VM's socket without an answer; see: vnet log show agent" : $"'{vm}' has no TAP to give: {Encoding.UTF8.GetString(answer[..length])}");
    }

    private static FileDescriptor Connect(string path)
    {
        const int SO_RCVTIMEO = 20;
        uint length = SysSocket.WriteUnixAddress(path, out SysSocket.sockaddr_un address);
        var socket = new FileDescriptor(Syscall.Check(SysSocket.socket(SysSocket.AF_UNIX, SysSocket.SOCK_SEQPACKET | SysSocket.SOCK_CLOEXEC, 0), "socket(AF_UNIX)"));
        long* timeout = stackalloc long[2] { 5, 0 };
        _ = SysSocket.setsockopt(socket.Number, SysSocket.SOL_SOCKET, SO_RCVTIMEO, timeout, 16);
        if (SysSocket.connect(socket.Number, &address, length) >= 0)
            return socket;
        int errno = Syscall.Errno;
        socket.Dispose();
        throw errno is NativeErrno.EACCES or NativeErrno.EPERM
            ? new CliException(ExitCode.Permission, $"{path} is not for this user: run as root")
            : new CliException(ExitCode.Failed, $"the VM's socket {path} does not answer: is the agent running? see: vnet status");
    }
}
