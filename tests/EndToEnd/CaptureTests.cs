using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>`vnet capture`: what it writes is what was forwarded, tshark reads it, and nobody is slowed by it.</summary>
public sealed partial class CaptureTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    private const string Fields = "-T fields -e frame.interface_name -e frame.len -e frame.comment";
    private TestGuest _guest = null!;

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        Require.Programs("tshark");
        _guest = await Instance.AddGuestAsync("cap", "vmnet8");
    }

    public override async ValueTask DisposeAsync()
    {
        if (_guest is not null)
            await _guest.DisposeAsync();
        await base.DisposeAsync();
        GC.SuppressFinalize(this);
    }

    [Fact]
    public async Task A_fetch_through_nat_opens_in_tshark_without_a_complaint()
    {
        string file = Path.Combine(Instance.ScratchDirectory, "fetch.pcapng");
        int written;
        await using (BackgroundCommand capture = await StartAsync("capture", "vmnet8", "--port", _guest.Name, "-w", file))
        {
            (await _guest.RunAsync("curl", "-sSf", "-o", "/dev/null", $"http://{Instance.WanAddress}/bytes/1000000")).EnsureSuccess();
            (await _guest.RunAsync("ping", "-c", "2", "-i", "0.2", "192.168.108.2")).EnsureSuccess();
            written = await InterruptAsync(capture);
        }
        const string Strict = "-o tcp.check_checksum:TRUE -o ip.check_checksum:TRUE -o udp.check_checksum:TRUE";
        string[] frames = await TsharkAsync($"-r {file} {Strict} {Fields}");
        Assert.Equal(written, frames.Length);
        Assert.All(frames, frame => Assert.Matches($@"^{_guest.Name}\t\d+\t(from {_guest.Name}: to |to {_guest.Name}: sent)", frame));
        Assert.Contains(frames, frame => frame.Contains($"from {_guest.Name}: to nat", StringComparison.Ordinal));
        // Large segments are whole, and their checksums complete.
        Assert.Contains(frames, frame => int.Parse(frame.Split('\t')[1], CultureInfo.InvariantCulture) > 1514);
        Assert.Empty(await TsharkAsync($"-r {file} {Strict} -Y 'tcp.checksum.status==0||ip.checksum.status==0||udp.checksum.status==0||_ws.malformed'"));
        Assert.NotEmpty(await TsharkAsync($"-r {file} {Strict} -Y 'tcp.checksum.status==1 && tcp.len>1460'"));
        // The whole transfer is there, both ways.
        Assert.Equal(["200"], await TsharkAsync($"-r {file} -Y http.response -T fields -e http.response.code"));
        Assert.Equal(4, (await TsharkAsync($"-r {file} -Y icmp")).Length);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(file));
        File.Delete(file);
    }

    [Fact]
    public async Task A_pipe_to_tshark_carries_cut_segments_that_pass_the_filter()
    {
        Task<CommandResult> piped = Command.RunAsync("sh", "-c",
            $"{CommandText("capture", "vmnet8", "--cut", "--filter", "'tcp src port 80'", "--count", "40", "-w", "-")} 2>/dev/null | tshark -r - {Fields}");
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the pipe ends", async () =>
        {
            await _guest.RunAsync("curl", "-s", "-o", "/dev/null", "--max-time", "3", $"http://{Instance.WanAddress}/bytes/200000");
            return piped.IsCompleted;
        });
        CommandResult result = (await piped).EnsureSuccess();
        string[] frames = result.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(40, frames.Length);
        Assert.All(frames, frame => Assert.StartsWith("nat\t", frame, StringComparison.Ordinal));
        Assert.All(frames, frame => Assert.InRange(int.Parse(frame.Split('\t')[1], CultureInfo.InvariantCulture), 54, 1514));
        Assert.Contains(frames, frame => frame.Contains("piece 2 of a large segment", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_terminal_shows_a_line_a_frame_and_who_reads_no_more_ends_it()
    {
        Task<CommandResult> piped = Command.RunAsync("sh", "-c", $"{CommandText("capture", "vmnet8", "--port", _guest.Name, "--filter", "icmp")} | head -n 2");
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the pipe ends", async () =>
        {
            await _guest.RunAsync("ping", "-c", "2", "-i", "0.2", "192.168.108.2");
            return piped.IsCompleted;
        });
        // Into a file, both outputs go one after the other.
        CommandResult both = await Command.RunAsync("sh", "-c", $"{CommandText("capture", "vmnet8", "--count", "3")} >{Instance.ScratchDirectory}/both 2>&1 & sleep 1.5; ip netns exec {_guest.Name} ping -q -c 4 -i 0.2 192.168.108.2; wait; cat {Instance.ScratchDirectory}/both");
        Assert.Matches("(?s)capturing vmnet8; Ctrl-C ends it\n(\\d\\d:[^\n]*\n){3}3 frames captured, 0 missed\n$", both.Output);
        string[] lines = (await piped).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        string address = (await _guest.AddressAsync()).ToString();
        Assert.Equal(2, lines.Length);
        Assert.Matches($@"^\d\d:\d\d:\d\d\.\d{{6}}  {_guest.Name}  in   {address} > 192.168.108.2 ICMP echo request id \d+ seq \d+ \| to nat$", lines[0]);
        Assert.Matches($@"  out  192.168.108.2 > {address} ICMP echo reply id \d+ seq \d+ \| sent$", lines[1]);
    }

    [Fact]
    public async Task A_drop_is_shown_with_its_cause()
    {
        (await Instance.VnetAsync("network", "create", "capiso", "--kind", "isolated", "--isolate-ports")).EnsureSuccess();
        await using (TestGuest one = await Instance.AddGuestAsync("iso1", "capiso", "--no-dhcp", "--mac", "02:56:4e:15:00:01"))
        await using (TestGuest two = await Instance.AddGuestAsync("iso2", "capiso", "--no-dhcp", "--mac", "02:56:4e:15:00:02"))
        {
            (TestGuest Guest, int Own, int Other)[] ends = [(one, 1, 2), (two, 2, 1)];
            foreach ((TestGuest guest, int own, int other) in ends)
            {
                (await guest.RunAsync("ip", "addr", "add", $"10.9.9.{own}/24", "dev", "eth0")).EnsureSuccess();
                (await guest.RunAsync("ip", "neigh", "add", $"10.9.9.{other}", "lladdr", $"02:56:4e:15:00:0{other}", "dev", "eth0", "nud", "permanent")).EnsureSuccess();
            }
            // The switch learns where each of them is.
            await two.RunAsync("ping", "-c", "1", "-W", "1", "10.9.9.1");
            await using BackgroundCommand capture = await StartAsync("capture", "capiso", "--drops", "--filter", "icmp", "--count", "1", "--json");
            await one.RunAsync("ping", "-c", "1", "-W", "1", "10.9.9.2");
            Assert.Equal(0, await capture.WaitAsync(TimeSpan.FromSeconds(5)));
            string line = capture.Output.Split('\n').Single(text => text.StartsWith('{'));
            using JsonDocument frame = JsonDocument.Parse(line);
            JsonElement verdict = frame.RootElement.GetProperty("verdict");
            Assert.Equal(("isolated", 1u, 0u), (verdict.GetProperty("dropCause").GetString(), verdict.GetProperty("dropped").GetUInt32(), verdict.GetProperty("sent").GetUInt32()));
            Assert.Equal($"networks/capiso/ports/{one.Name}", verdict.GetProperty("dropPort").GetString());
        }
        (await Instance.VnetAsync("network", "rm", "capiso")).EnsureSuccess();
    }

    [Fact]
    public async Task A_reader_that_does_not_read_slows_no_frame_and_learns_what_it_missed()
    {
        Require.Programs("iperf3");
        string folder = Directory.CreateDirectory(Path.Combine(Instance.ScratchDirectory, "slow")).FullName;
        await using BackgroundCommand server = Instance.Wan.Start("iperf3", "-s", "-1", "-p", "5301");
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "iperf3 listens", async () => (await Instance.Wan.RunAsync("sh", "-c", "ss -ltn | grep -q ':5301 '")).ExitCode == 0);
        Dictionary<string, ulong> before = await DropsAsync();
        // The reader reads its pipe only when it is told to.
        string capture = $"sh -c 'echo $$ >{folder}/pid; exec {CommandText("capture", "vmnet8", "--port", _guest.Name, "-w", "-")} 2>{folder}/err'";
        await using BackgroundCommand piped = BackgroundCommand.Start("sh", "-c", $"{capture} | (while [ ! -e {folder}/go ]; do sleep 0.1; done; cat >{folder}/file)");
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the capture begins", () => File.Exists(folder + "/err") && File.ReadAllText(folder + "/err").Contains("capturing", StringComparison.Ordinal));

        (await _guest.RunAsync(TimeSpan.FromSeconds(40), "iperf3", "-c", Instance.WanAddress, "-p", "5301", "-n", "200M")).EnsureSuccess();
        Assert.Equal(before, await DropsAsync());

        await File.WriteAllTextAsync(folder + "/go", "", Cancellation);
        NetworkNamespace.Kill(int.Parse(File.ReadAllText(folder + "/pid"), CultureInfo.InvariantCulture), 2);
        Assert.Equal(0, await piped.WaitAsync(TimeSpan.FromSeconds(10)));
        Match summary = Summary().Match(File.ReadAllText(folder + "/err"));
        Assert.True(summary.Success, File.ReadAllText(folder + "/err"));
        int captured = int.Parse(summary.Groups[1].ValueSpan, CultureInfo.InvariantCulture), missed = int.Parse(summary.Groups[2].ValueSpan, CultureInfo.InvariantCulture);
        Assert.True(missed > 0, summary.Value);
        Assert.Equal(captured, (await TsharkAsync($"-r {folder}/file -T fields -e frame.number")).Length);
        Log(summary.Value);
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task What_cannot_be_captured_is_refused_with_the_reason()
    {
        CommandResult filter = await Instance.VnetAsync("capture", "vmnet8", "--filter", "tcp prot 80");
        Assert.Equal((2, true), (filter.ExitCode, filter.Error.Contains("syntax error", StringComparison.Ordinal)));
        CommandResult port = await Instance.VnetAsync("capture", "vmnet8", "--port", "nobody");
        Assert.Equal((5, true), (port.ExitCode, port.Error.Contains("PORT_NOT_FOUND", StringComparison.Ordinal)));
        CommandResult network = await Instance.VnetAsync("capture", "nowhere");
        Assert.Equal((5, true), (network.ExitCode, network.Error.Contains("NETWORK_NOT_FOUND", StringComparison.Ordinal)));
        Assert.Equal(2, (await Instance.VnetAsync("capture", "vmnet8", "--cut", "--whole")).ExitCode);
    }

    private string CommandText(params string[] arguments) => $"env VNETMESH_RUN_DIR={Instance.RunDirectory} {Instance.CommandLine} {string.Join(' ', arguments)}";

    private async Task<BackgroundCommand> StartAsync(params string[] arguments)
    {
        BackgroundCommand capture = BackgroundCommand.Start(["env", "VNETMESH_RUN_DIR=" + Instance.RunDirectory, Instance.CommandLine, .. arguments]);
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the capture begins", () => capture.Output.Contains("Ctrl-C ends it", StringComparison.Ordinal)
            || (capture.HasExited ? throw new InvalidOperationException(capture.Output) : false));
        return capture;
    }

    /// <summary>Ctrl-C.</summary>
    /// <returns>How many frames it says it has captured.</returns>
    private static async Task<int> InterruptAsync(BackgroundCommand capture)
    {
        NetworkNamespace.Kill(capture.ProcessId, 2);
        Assert.Equal(0, await capture.WaitAsync(TimeSpan.FromSeconds(5)));
        Match summary = Summary().Match(capture.Output);
        Assert.True(summary.Success, capture.Output);
        Assert.Equal("0", summary.Groups[2].Value);
        return int.Parse(summary.Groups[1].ValueSpan, CultureInfo.InvariantCulture);
    }

    /// <summary>Runs tshark, which must have nothing to complain of.</summary>
    private static async Task<string[]> TsharkAsync(string arguments)
    {
        CommandResult result = (await Command.RunAsync("sh", "-c", "tshark " + arguments)).EnsureSuccess();
        // It warns that it runs as root, which is not about the file.
        Assert.All(result.Error.Split('\n', StringSplitOptions.RemoveEmptyEntries), line => Assert.StartsWith("Running as user \"root\"", line, StringComparison.Ordinal));
        return result.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }

    private async Task<Dictionary<string, ulong>> DropsAsync()
    {
        using JsonDocument port = await Instance.JsonAsync("port", "show", $"vmnet8/{_guest.Name}");
        using JsonDocument nat = await Instance.JsonAsync("port", "show", "vmnet8/nat");
        return new[] { port, nat }.SelectMany(one => one.RootElement.GetProperty("counters").GetProperty("drops").EnumerateObject()
            .Select(drop => (Name: one.RootElement.GetProperty("name").GetString() + " " + drop.Name, Count: ulong.Parse(drop.Value.GetString()!, CultureInfo.InvariantCulture))))
            .ToDictionary(drop => drop.Name, drop => drop.Count);
    }

    [GeneratedRegex(@"(\d+) frames captured, (\d+) missed")]
    private static partial Regex Summary();
}
