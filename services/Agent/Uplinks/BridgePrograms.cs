using System.Buffers.Binary;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Uplinks;

// How the kernel carries frames between a NIC and the TAP of its network. Three programs at hooks of the traffic control,
// and a table of the guests' addresses between them:
//
//   a frame from the switch (TAP, ingress)     remember its source as a guest's
//       for the host's own address ........... into the NIC's ingress: as if it had come by the wire
//       for a group .......................... out by the NIC, and into its ingress
//       for any other ........................ out by the NIC
//   a frame from the LAN (NIC, ingress)        its source is no guest (or a guest that has moved to the LAN): forget it
//       for a guest .......................... to the TAP
//       for a group .......................... a copy to the TAP; the host has the frame
//       for any other ........................ the host's, as without us
//   a frame from the host (NIC, egress)
//       for a guest .......................... to the TAP, and not on the wire
//       for a group .......................... a copy to the TAP; the frame goes out
//       for any other ........................ out, as without us
//
// What the first program has sent passes the NIC's own hooks again. It bears a mark in tc_index, which nothing else looks at
// there, so that it is let through and not sent back. mirred and u32 alone cannot tell it: a guest's broadcast that is put
// into the NIC's ingress comes back to the switch as if from the LAN (docs/adr/0009).
//
// What is neither a guest's nor a group's never leaves the kernel's own path: the host's traffic costs a look into a table.

/// <summary>Writes the programs.</summary>
internal static class BridgePrograms
{
    /// <summary>Guests' addresses that the table holds; the one that was not used for longest makes room.</summary>
    public const uint MaxGuests = 16384;

    /// <summary>Octets of a table's key and of its value: an address in the first six.</summary>
    public const uint EntryLength = 8;

    /// <summary>"VN", in tc_index of what comes from the switch.</summary>
    private const int Mark = 0x564E;

    private const int Source = 8;
    private const int Destination = 16;
    private const int Frame = 6; // the register that points to the frame
    private const int GroupBit = 1; // of the first octet, which is the lowest on the machines that we run on

    public static ulong[] FromSwitch(FileDescriptor guests, int nic, MacAddress host) => ReadAddresses(new BpfAssembler())
        .SetWide(8, KeyOf(host))
        // Nobody but the host sends by its address; learned, it would cut the host off.
        .LoadStack(7, Source).JumpIfSame(7, 8, "drop")
        .SetMap(1, guests.Number).SetStack(2, Source).Call(LinuxBpf.BPF_FUNC_map_lookup_elem).JumpIfNotEqual(0, 0, "known")
        .SetMap(1, guests.Number).SetStack(2, Source).SetStack(3, Source).Set(4, 0).Call(LinuxBpf.BPF_FUNC_map_update_elem)
        .Label("known")
        .Set(1, Mark).StoreWord(Frame, LinuxBpf.SkBuffTcIndex, 1)
        .LoadStack(7, Destination).JumpIfAnyBit(7, GroupBit, "group").JumpIfSame(7, 8, "host")
        .Set(1, nic).Set(2, 0).Call(LinuxBpf.BPF_FUNC_redirect).Exit()
        .Label("group")
        .Move(1, Frame).Set(2, nic).Set(3, 0).Call(LinuxBpf.BPF_FUNC_clone_redirect)
        .Label("host")
        .Set(1, nic).Set(2, LinuxBpf.BPF_F_INGRESS).Call(LinuxBpf.BPF_FUNC_redirect).Exit()
        .Label("drop").Return(LinuxBpf.TC_ACT_SHOT)
        .Finish();

    public static ulong[] FromLan(FileDescriptor guests, int tap) => ToGuests(
        PassOwn(new BpfAssembler())
            .SetMap(1, guests.Number).SetStack(2, Source).Call(LinuxBpf.BPF_FUNC_map_lookup_elem).JumpIfEqual(0, 0, "stranger")
            .SetMap(1, guests.Number).SetStack(2, Source).Call(LinuxBpf.BPF_FUNC_map_delete_elem)
            .Label("stranger"), guests, tap).Finish();

    public static ulong[] FromHost(FileDescriptor guests, int tap) => ToGuests(PassOwn(new BpfAssembler()), guests, tap).Finish();

    /// <summary>All that is written to the TAP goes into the NIC's ingress: the pcap driver's way to the host.</summary>
    public static ulong[] IntoHost(int nic) => new BpfAssembler().Set(1, nic).Set(2, LinuxBpf.BPF_F_INGRESS).Call(LinuxBpf.BPF_FUNC_redirect).Exit().Finish();

    private static BpfAssembler ToGuests(BpfAssembler program, FileDescriptor guests, int tap) => program
        .LoadStack(7, Destination).JumpIfAnyBit(7, GroupBit, "group")
        .SetMap(1, guests.Number).SetStack(2, Destination).Call(LinuxBpf.BPF_FUNC_map_lookup_elem).JumpIfEqual(0, 0, "pass")
        .Set(1, tap).Set(2, 0).Call(LinuxBpf.BPF_FUNC_redirect).Exit()
        .Label("group")
        .Move(1, Frame).Set(2, tap).Set(3, 0).Call(LinuxBpf.BPF_FUNC_clone_redirect)
        // Filters of others have their turn.
        .Label("pass").Return(LinuxBpf.TC_ACT_UNSPEC);

    private static BpfAssembler PassOwn(BpfAssembler program) => ReadAddresses(program
        .LoadWord(7, 1, LinuxBpf.SkBuffTcIndex).JumpIfNotEqual(7, Mark, "other")
        .Set(7, 0).StoreWord(1, LinuxBpf.SkBuffTcIndex, 7).Return(LinuxBpf.TC_ACT_UNSPEC)
        .Label("other"));

    /// <summary>Puts the two addresses on the stack, each in eight octets; what has none is passed on.</summary>
    private static BpfAssembler ReadAddresses(BpfAssembler program) => program
        .Move(Frame, 1).ClearStack(Source).ClearStack(Destination)
        .Move(1, Frame).Set(2, 0).SetStack(3, Destination).Set(4, MacAddress.Length).Call(LinuxBpf.BPF_FUNC_skb_load_bytes).JumpIfNotEqual(0, 0, "short")
        .Move(1, Frame).Set(2, MacAddress.Length).SetStack(3, Source).Set(4, MacAddress.Length).Call(LinuxBpf.BPF_FUNC_skb_load_bytes).JumpIfEqual(0, 0, "read")
        .Label("short").Return(LinuxBpf.TC_ACT_UNSPEC)
        .Label("read");

    /// <summary>An address as the programs see it: eight octets read as one number.</summary>
    private static ulong KeyOf(MacAddress address)
    {
        Span<byte> octets = stackalloc byte[8];
        octets.Clear();
        address.Write(octets);
        return BinaryPrimitives.ReadUInt64LittleEndian(octets);
    }
}
