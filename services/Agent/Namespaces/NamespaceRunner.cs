using System.Runtime.ExceptionServices;
using VNetMesh.Native;

namespace VNetMesh.Agent.Namespaces;

/// <summary>
/// Runs a function inside other namespaces. Namespaces belong to a thread; so each call has a thread of its own that ends
/// with it, and no thread of the pool ever comes back in the wrong one.
/// </summary>
public static class NamespaceRunner
{
    /// <summary>Runs inside a network namespace and waits for it.</summary>
    /// <param name="network">A descriptor of the namespace; null runs in the agent's own.</param>
    /// <exception cref="SyscallException">The namespace cannot be entered (EPERM wants CAP_SYS_ADMIN).</exception>
    public static T Run<T>(FileDescriptor? network, Func<T> function) => network is null ? function() : OnThread(() =>
    {
        Syscall.Check(Sched.setns(network.Number, Sched.CLONE_NEWNET), "setns(CLONE_NEWNET)");
        return function();
    });

    /// <summary>Runs inside a mount namespace and waits for it.</summary>
    /// <exception cref="SyscallException">It cannot be entered (EPERM wants CAP_SYS_ADMIN and CAP_SYS_CHROOT).</exception>
    public static T RunInMounts<T>(FileDescriptor mounts, Func<T> function) => OnThread(() =>
    {
        // setns(2): a thread that shares its root and working directory cannot change its mount namespace.
        Syscall.Check(Sched.unshare(Sched.CLONE_FS), "unshare(CLONE_FS)");
        Syscall.Check(Sched.setns(mounts.Number, Sched.CLONE_NEWNS), "setns(CLONE_NEWNS)");
        return function();
    });

    private static T OnThread<T>(Func<T> function)
    {
        T result = default!;
        ExceptionDispatchInfo? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                result = function();
            }
            catch (Exception exception)
            {
                failure = ExceptionDispatchInfo.Capture(exception);
            }
        })
        { IsBackground = true, Name = "namespace" };
        thread.Start();
        thread.Join();
        failure?.Throw();
        return result;
    }
}
