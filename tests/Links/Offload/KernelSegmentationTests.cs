using System.Diagnostics;
using CsCheck;
using VNetMesh.Native;
using VNetMesh.Packets;
using VNetMesh.Packets.Offload;
using VNetMesh.Packets.Tests.Offload;

namespace VNetMesh.Links.Tests.Offload;

/// <summary>
/// The segmenter against the kernel's own: large segments go into a TAP and come out, cut by the kernel, at another one on
/// the same bridge that takes no offloads. All in a network namespace of the test's own.
/// </summary>
public sealed class KernelSegmentationTests
{
    /// <summary>
    /// What the kernel cuts: nothing behind an authentication header, and it drops what calls itself large and is not (the
    /// segmenter passes that on as the one frame that it is).
    /// </summary>
    private static readonly Gen<LargeFrame> Large = LargeFrame.Any.Where(model => model.Payload.Length > model.SegmentSize && model.Extensions.All(extension => extension.Kind != 51));

    [Fact]
    public void Segments_are_octet_for_octet_those_of_the_kernel()
    {
        using Bench bench = Bench.Make();
        int cut = 0;
        Large.Where(model => model.IsTcp).Sample(model =>
        {
            cut += Compare(bench, model);
        }, iter: 250, threads: 1);
        Assert.True(cut > 500, $"only {cut} segments were compared");
    }

    [Fact]
    public void Datagrams_are_octet_for_octet_those_of_the_kernel()
    {
        using Bench bench = Bench.Make();
        if (bench.Send(LargeFrame.Simple with { IsTcp = false }) != SendStatus.Sent)
            Assert.Skip("this kernel takes no UDP segments (USO, Linux 6.2) from a TAP");
        bench.Receive();
        Large.Where(model => !model.IsTcp).Sample(model =>
        {
            Compare(bench, model);
        }, iter: 150, threads: 1);
    }

    private static int Compare(Bench bench, LargeFrame model)
    {
        Assert.Equal(SendStatus.Sent, bench.Send(model));
        List<byte[]> theirs = bench.Receive();
        var ours = new List<byte[]>();
        Assert.Equal(OffloadFault.None, Segmenter.Begin(model.Large(), model.Header, out SegmentCursor cursor));
        while (cursor.NextLength > 0)
        {
            byte[] frame = new byte[cursor.NextLength];
            cursor.WriteNext(frame);
            ours.Add(frame);
        }
        Assert.Equal(theirs.Select(Convert.ToHexString), ours.Select(Convert.ToHexString));
        return ours.Count;
    }

    /// <summary>A namespace with a bridge and two TAPs on it.</summary>
    private sealed class Bench : IDisposable
    {
        private readonly string _namespace = $"links-gso-{Environment.ProcessId}-{Guid.NewGuid().ToString("N")[..6]}";
        private TapLink? _in;
        private TapLink? _out;

        public static Bench Make()
        {
            if (Unistd.geteuid() != 0)
                Assert.Skip("TAP devices and network namespaces take root");
            if (!File.Exists(IfTun.DevicePath))
                Assert.Skip($"{IfTun.DevicePath} is not there");
            var bench = new Bench();
            try
            {
                bench.SetUp();
                return bench;
            }
            catch
            {
                bench.Dispose();
                throw;
            }
        }

        public SendStatus Send(LargeFrame model)
        {
            byte[] frame = model.Large();
            byte[] record = new byte[VirtioNetHeader.Length + frame.Length];
            VirtioNetHeader header = model.Header;
            header.HeaderLength = (ushort)(frame.Length - model.Payload.Length);
            header.Write(record);
            frame.CopyTo(record, VirtioNetHeader.Length);
            return _in!.TrySend(record, default);
        }

        /// <summary>What comes out, without the kernel's own chatter. The kernel forwards before the write returns; a moment is for those that it does later.</summary>
        public List<byte[]> Receive()
        {
            var frames = new List<byte[]>();
            for (int idle = 0; idle < (frames.Count > 0 ? 2 : 200);)
            {
                if (_out!.TryReceive(out ReadOnlySpan<byte> record, out _) != ReceiveStatus.Received)
                {
                    idle++;
                    Thread.Sleep(1);
                    continue;
                }
                Assert.Equal(VirtioNetHeader.GsoNone, VirtioNetHeader.Read(record).GsoType);
                Assert.False(VirtioNetHeader.Read(record).NeedsChecksum);
                ReadOnlySpan<byte> frame = record[VirtioNetHeader.Length..];
                if (frame[6..12].SequenceEqual((ReadOnlySpan<byte>)[2, 0, 0, 0, 0, 2]))
                    frames.Add(frame.ToArray());
            }
            return frames;
        }

        public void Dispose()
        {
            _in?.Dispose();
            _out?.Dispose();
            Ip("netns", "del", _namespace);
        }

        private void SetUp()
        {
            if (!Ip("netns", "add", _namespace))
                Assert.Skip("no network namespace can be made here (ip netns add)");
            // Without IPv6 the kernel has nothing of its own to say on these devices.
            Ip("netns", "exec", _namespace, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1");
            if (!Ip("-n", _namespace, "link", "add", "br0", "mtu", "9000", "type", "bridge"))
                Assert.Skip("the kernel has no bridge");
            _in = new TapLink(MakeTap("gin", IfTun.TUN_F_CSUM | IfTun.TUN_F_TSO4 | IfTun.TUN_F_TSO6), LinkOffloads.All);
            _out = new TapLink(MakeTap("gout", 0), LinkOffloads.None);
            foreach (string device in new[] { "gin", "gout", "br0" })
            {
                if (device != "br0")
                    Assert.True(Ip("-n", _namespace, "link", "set", device, "mtu", "9000", "master", "br0"));
                Assert.True(Ip("-n", _namespace, "link", "set", device, "up"));
            }
            WaitForForwarding();
        }

        /// <summary>A port of a bridge forwards a moment after it is up.</summary>
        private void WaitForForwarding()
        {
            byte[] probe = [.. new byte[VirtioNetHeader.Length], 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xB5, .. new byte[46]];
            for (int i = 0; i < 100; i++)
            {
                _in!.TrySend(probe, default);
                if (Receive().Count > 0)
                    return;
            }
            Assert.Fail("the bridge does not forward");
        }

        private FileDescriptor MakeTap(string name, nuint offloads)
        {
            FileDescriptor? tap = null;
            Exception? failure = null;
            // A thread that enters a namespace stays there, so it is one of its own.
            var thread = new Thread(() =>
            {
                try
                {
                    tap = OpenTap(name, offloads);
                }
                catch (Exception exception)
                {
                    failure = exception;
                }
            });
            thread.Start();
            thread.Join();
            return tap ?? throw new InvalidOperationException("the TAP could not be made", failure);
        }

        private unsafe FileDescriptor OpenTap(string name, nuint offloads)
        {
            using var place = new FileDescriptor(Syscall.Check(Fcntl.open("/run/netns/" + _namespace, Fcntl.O_RDONLY | Fcntl.O_CLOEXEC), "open"));
            Syscall.Check(Sched.setns(place.Number, Sched.CLONE_NEWNET), "setns");
            var tap = new FileDescriptor(Syscall.Check(Fcntl.open(IfTun.DevicePath, Fcntl.O_RDWR | Fcntl.O_CLOEXEC | Fcntl.O_NONBLOCK), "open"));
            IfTun.ifreq request = default;
            request.SetName(name);
            request.ifr_flags = IfTun.IFF_TAP | IfTun.IFF_NO_PI | IfTun.IFF_VNET_HDR;
            Syscall.Check(IfTun.ioctl(tap.Number, IfTun.TUNSETIFF, &request), "TUNSETIFF");
            int size = VirtioNetHeader.Length;
            Syscall.Check(IfTun.ioctl(tap.Number, IfTun.TUNSETVNETHDRSZ, &size), "TUNSETVNETHDRSZ");
            Syscall.Check(IfTun.ioctl(tap.Number, IfTun.TUNSETOFFLOAD, offloads), "TUNSETOFFLOAD");
            return tap;
        }

        private static bool Ip(params string[] arguments)
        {
            try
            {
                using Process process = Process.Start(new ProcessStartInfo("ip", arguments) { RedirectStandardError = true, RedirectStandardOutput = true })!;
                process.StandardError.ReadToEnd();
                process.WaitForExit();
                return process.ExitCode == 0;
            }
            catch (System.ComponentModel.Win32Exception)
            {
                return false;
            }
        }
    }
}
