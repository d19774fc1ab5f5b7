using System.Text;
using VNetMesh.Agent.Devices;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Netlink;
using VNetMesh.Links;
using VNetMesh.Native;

namespace VNetMesh.Agent.Guests;

/// <summary>
/// The fast way into a VM: its monitor has a TAP of its own, and the kernel joins that to the switch's. Who asks at the VM's
/// socket is given the TAP's descriptor; from then on the agent has no part in it.
///
///   what happens                      what is done
///   a monitor asks                    it gets the TAP; while it has it open, whoever else asks is refused
///   it ends                           the TAP has no carrier, and waits for the next one
///   kill -9 of switch or agent        the monitor notices nothing: what is between the TAPs is the kernel's
/// </summary>
public sealed partial class VmTapKeeper(ChangeJournal journal, HostAccess host, VmDoors doors, ILogger<VmTapKeeper> logger)
{
    /// <summary>Makes what is missing, and answers those who ask for the TAP.</summary>
    /// <param name="port">The switch's TAP.</param>
    /// <returns>Whether a monitor has the VM's.</returns>
    /// <exception cref="IOException">The kernel refused.</exception>
    public bool Reconcile(GuestSpec guest, NetworkNamespace space, LinkChange port, uint mtu)
    {
        LinkInfo link = Ensure(guest, space, port, mtu);
        VmSocket socket = doors.Ensure(guest);
        bool isGiven = false;
        while (socket.Accept() is { } client)
        {
            using (client)
                isGiven |= Answer(guest, client, space, link);
        }
        return link.HasCarrier || isGiven;
    }

    private LinkInfo Ensure(GuestSpec guest, NetworkNamespace space, LinkChange port, uint mtu)
    {
        LinkInfo? found = null;
        foreach ((long id, VmTapChange change) in journal.Of<VmTapChange>(guest.Name).ToList())
        {
            bool fits = found is null && change.NetnsIdentity == space.Identity && change.SwitchIndex == port.Index;
            found = fits ? change.Look(host, mtu) : found;
            if (!fits || found is null)
                journal.Undo(id);
        }
        if (found is not null)
            return found;
        VmTapChange made = journal.Perform(new VmTapChange(guest.Name, space.Path, space.Identity, port.Index, mtu));
        LogMade(guest.Name, made.Target);
        return made.Look(host, mtu) ?? throw new IOException($"the device {made.Target} was removed as soon as it was made");
    }

    private bool Answer(GuestSpec guest, FileDescriptor client, NetworkNamespace space, LinkInfo link)
    {
        try
        {
            using TapQueue tap = Open(space, link);
            DescriptorMessage.Send(client.Number, [0], [tap.Descriptor.Number]);
            LogGiven(guest.Name);
            return true;
        }
        catch (SyscallException exception) when (exception.Errno == NativeErrno.EBUSY)
        {
            Refuse(client, "another VM runs on it");
        }
        catch (IOException exception)
        {
            LogNotGiven(guest.Name, exception.Message);
            Refuse(client, exception.Message.Split('\n')[0]);
        }
        return false;
    }

    private static TapQueue Open(NetworkNamespace space, LinkInfo link) => space.Run(() =>
    {
        TapQueue tap = TapDevice.OpenSingle(VmTapChange.MonitorSide);
        using RtNetlink netlink = RtNetlink.Open();
        if (netlink.FindLink(VmTapChange.MonitorSide)?.Index == link.Index)
            return tap;
        // It went away meanwhile, and the kernel made a new one of that name, which goes with the descriptor.
        tap.Dispose();
        throw new IOException($"the device {VmTapChange.MonitorSide} is gone");
    });

    private static void Refuse(FileDescriptor client, string reason)
    {
        try
        {
            byte[] text = Encoding.UTF8.GetBytes(reason);
            DescriptorMessage.Send(client.Number, text.AsSpan(0, Math.Min(text.Length, 1024)), []);
        }
        catch (SyscallException)
        {
            // It does not wait for the answer.
        }
    }

    [LoggerMessage(LogLevel.Information, "{Guest}: made the device {Device}")]
    private partial void LogMade(string guest, string device);

    [LoggerMessage(LogLevel.Information, "{Guest}: gave the VM's TAP to a monitor")]
    private partial void LogGiven(string guest);

    [LoggerMessage(LogLevel.Warning, "{Guest}: could not give the VM's TAP to a monitor: {Reason}")]
    private partial void LogNotGiven(string guest, string reason);
}
