using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Devices;

/// <summary>
/// TAP devices of the calling thread's network namespace: multi-queue, with a virtio_net_hdr of 12 octets and all
/// offloads, and persistent, so that they outlive whoever has them open.
/// </summary>
public static unsafe class TapDevice
{
    private const short Flags = IfTun.IFF_TAP | IfTun.IFF_NO_PI | IfTun.IFF_VNET_HDR | IfTun.IFF_MULTI_QUEUE;

    private const short SingleQueueFlags = Flags & ~IfTun.IFF_MULTI_QUEUE;

    /// <summary>Makes a device, down and without a queue.</summary>
    /// <exception cref="SyscallException">EBUSY: an interface of that name is there. EPERM: CAP_NET_ADMIN is missing. ENOENT: there is no /dev/net/tun.</exception>
    public static void Create(string name) => Make(name, Flags);

    /// <summary>Makes a device that is open to one at a time: whoever comes second is told EBUSY.</summary>
    /// <inheritdoc cref="Create"/>
    public static void CreateSingle(string name) => Make(name, SingleQueueFlags);

    /// <summary>Opens a device that was made by <see cref="CreateSingle"/>.</summary>
    /// <exception cref="SyscallException">EBUSY: somebody has it open.</exception>
    public static TapQueue OpenSingle(string name) => Open(name, SingleQueueFlags);

    private static void Make(string name, short flags)
    {
        using TapQueue queue = Open(name, unchecked((short)(flags | IfTun.IFF_TUN_EXCL)));
        Syscall.Check(IfTun.ioctl(queue.Descriptor.Number, IfTun.TUNSETPERSIST, (nuint)1), $"ioctl(TUNSETPERSIST, {name})");
    }

    /// <summary>
    /// Opens a queue of a device that was made by <see cref="Create"/>. Where it is not there the kernel makes one; the
    /// caller compares its index, and closing the queue removes it again.
    /// </summary>
    /// <exception cref="SyscallException">EINVAL: what has the name is no TAP of this kind. E2BIG: too many queues.</exception>
    public static TapQueue Attach(string name) => Open(name, Flags);

    /// <summary>Tells the device's own side which frames it may leave to this one to cut and to complete; UDP segments where the kernel has them (Linux 6.2).</summary>
    private static LinkOffloads Offer(FileDescriptor queue, string name)
    {
        const uint Tcp = IfTun.TUN_F_CSUM | IfTun.TUN_F_TSO4 | IfTun.TUN_F_TSO6;
        if (IfTun.ioctl(queue.Number, IfTun.TUNSETOFFLOAD, (nuint)(Tcp | IfTun.TUN_F_USO4 | IfTun.TUN_F_USO6)) >= 0)
            return LinkOffloads.All;
        Syscall.Check(IfTun.ioctl(queue.Number, IfTun.TUNSETOFFLOAD, (nuint)Tcp), $"ioctl(TUNSETOFFLOAD, {name})");
        return LinkOffloads.Tcp;
    }

    private static TapQueue Open(string name, short flags)
    {
        var queue = new FileDescriptor(Syscall.Check(Fcntl.open(IfTun.DevicePath, Fcntl.O_RDWR | Fcntl.O_CLOEXEC | Fcntl.O_NONBLOCK), $"open({IfTun.DevicePath})"));
        try
        {
            var request = new IfTun.ifreq { ifr_flags = flags };
            request.SetName(name);
            Syscall.Check(IfTun.ioctl(queue.Number, IfTun.TUNSETIFF, &request), $"ioctl(TUNSETIFF, {name})");
            int headerLength = VirtioNetHeader.Length;
            Syscall.Check(IfTun.ioctl(queue.Number, IfTun.TUNSETVNETHDRSZ, &headerLength), $"ioctl(TUNSETVNETHDRSZ, {name})");
            return new TapQueue(queue, Offer(queue, name));
        }
        catch
        {
            queue.Dispose();
            throw;
        }
    }
}

/// <summary>
/// One queue of a TAP. A queue that is set aside gets no frames, but keeps the carrier on: so the agent holds one of a
/// device whose frames go to a queue in the switch that the agent, restarted, no longer has.
/// </summary>
/// <param name="descriptor">Owned from now on.</param>
/// <param name="offloads">What the kernel takes in frames written to it.</param>
public sealed unsafe class TapQueue(FileDescriptor descriptor, LinkOffloads offloads) : IDisposable
{
    public FileDescriptor Descriptor { get; } = descriptor;

    public LinkOffloads Offloads { get; } = offloads;

    public bool IsSetAside { get; private set; }

    /// <exception cref="SyscallException">The device is gone.</exception>
    public void SetAside()
    {
        Set(IfTun.IFF_DETACH_QUEUE);
        IsSetAside = true;
    }

    /// <exception cref="SyscallException">The device is gone.</exception>
    public void TakeUp()
    {
        if (IsSetAside)
            Set(IfTun.IFF_ATTACH_QUEUE);
        IsSetAside = false;
    }

    public void Dispose() => Descriptor.Dispose();

    private void Set(short flags)
    {
        var request = new IfTun.ifreq { ifr_flags = flags };
        Syscall.Check(IfTun.ioctl(Descriptor.Number, IfTun.TUNSETQUEUE, &request), "ioctl(TUNSETQUEUE)");
    }
}
