using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.RegularExpressions;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>
/// Debian's Prometheus, with the configuration that we ship, beside the real services with traffic on them: every query of every
/// dashboard and every rule is asked as Grafana and Prometheus would.
/// </summary>
public sealed partial class DashboardTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    private const int Port = 9090;

    /// <summary>Four times the interval of scraping, as Grafana reckons.</summary>
    private const string RateInterval = "20s";

    private static readonly string Folder = Path.Combine(FindRoot(), "services", "Observability");

    [Fact]
    public async Task Every_query_is_understood_and_shows_the_traffic()
    {
        Require.Programs("prometheus", "dig", "python3");
        await using TestGuest guest = await Instance.AddGuestAsync("dash", "vmnet8");
        string folder = Path.Combine(Instance.ScratchDirectory, "prometheus");
        await using BackgroundCommand prometheus = Instance.Host.Start("prometheus", "--config.file=" + Path.Combine(Folder, "prometheus", "prometheus.yml"),
            "--storage.tsdb.path=" + folder, $"--web.listen-address=127.0.0.1:{Port.ToString(CultureInfo.InvariantCulture)}", "--log.level=warn");
        await using BackgroundCommand traffic = guest.Namespace.Start("sh", "-c", Traffic);
        using HttpClient client = Client();
        await WaitForScrapesAsync(client, prometheus, 2);
        // Somebody gets an address while it is watched.
        await (await Instance.AddGuestAsync("dash2", "vmnet8")).DisposeAsync();
        await WaitForScrapesAsync(client, prometheus, 4);

        var failures = new List<string>();
        int asked = 0;
        foreach (string file in Directory.GetFiles(Path.Combine(Folder, "grafana", "dashboards"), "*.json").Order(StringComparer.Ordinal))
        {
            using JsonDocument dashboard = JsonDocument.Parse(await File.ReadAllTextAsync(file, Cancellation));
            foreach ((string where, string query) in Queries(dashboard.RootElement))
            {
                asked++;
                if (await FaultOfAsync(client, query) is { } fault)
                    failures.Add($"{Path.GetFileName(file)}, {where}: {fault}\n    {query}");
            }
            failures.AddRange(await FaultsOfVariablesAsync(client, dashboard.RootElement));
        }
        Assert.True(failures.Count == 0, string.Join('\n', failures));
        Assert.InRange(asked, 60, 500);
        await AssertRulesAsync(client);
    }

    [Fact]
    public async Task Every_alert_fires_when_it_should_and_only_then()
    {
        Require.Programs("promtool");
        string rules = Path.Combine(Folder, "prometheus", "rules", "vnetmesh.yml"), tests = Path.Combine(Folder, "prometheus", "tests", "rules_test.yml");
        (await Command.RunAsync("promtool", "check", "config", Path.Combine(Folder, "prometheus", "prometheus.yml"))).EnsureSuccess();
        (await Command.RunAsync("promtool", "test", "rules", tests)).EnsureSuccess();
        string text = await File.ReadAllTextAsync(tests, Cancellation);
        string[] alerts = [.. Alert().Matches(await File.ReadAllTextAsync(rules, Cancellation)).Select(match => match.Groups[1].Value)];
        Assert.InRange(alerts.Length, 10, 100);
        Assert.All(alerts, alert =>
        {
            Assert.Matches($@"alertname: {alert}\n\s+exp_alerts:\n\s+- exp_labels", text);
            Assert.Matches($@"alertname: {alert}\n\s+exp_alerts: \[\]", text);
        });
    }

    /// <summary>A fetch, a dial that is refused, a datagram, a question and a frame that the switch drops, again and again.</summary>
    private static string Traffic => $"""
        while :; do
            curl -s -m 2 -o /dev/null http://{Instance.WanAddress}/bytes/100000
            curl -s -m 2 -o /dev/null http://{Instance.WanAddress}:9
            dig +short +time=1 +tries=1 web.wan.test >/dev/null
            python3 -c '
        import socket
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(1); u.sendto(b"hello", ("{Instance.WanAddress}", 7)); u.recv(100)
        r = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); r.bind(("eth0", 0)); r.send(bytes.fromhex("0180c2000000") + bytes(6) + b"\x88\xcc" + bytes(46))'
            sleep 0.5
        done
        """;

    private static string FindRoot()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "VNetMesh.sln")))
            folder = Path.GetDirectoryName(folder);
        return folder ?? throw new InvalidOperationException("VNetMesh.sln is in no folder above the tests");
    }

    // A socket stays in the namespace that it was made in.
    private HttpClient Client() => new(new SocketsHttpHandler
    {
        ConnectCallback = async (_, cancellation) =>
        {
            Socket socket = Instance.Host.Enter(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
            try
            {
                await socket.ConnectAsync(new IPEndPoint(IPAddress.Loopback, Port), cancellation);
                return new NetworkStream(socket, ownsSocket: true);
            }
            catch
            {
                socket.Dispose();
                throw;
            }
        },
    })
    { BaseAddress = new Uri($"http://127.0.0.1:{Port.ToString(CultureInfo.InvariantCulture)}/api/v1/"), Timeout = TimeSpan.FromSeconds(10) };

    private static async Task WaitForScrapesAsync(HttpClient client, BackgroundCommand prometheus, int count) =>
        await Wait.UntilAsync(TimeSpan.FromSeconds(40), $"{count} scrapes of each service", async () =>
        {
            if (prometheus.HasExited)
                throw new InvalidOperationException(prometheus.Output);
            try
            {
                JsonElement[] series = Series(await GetAsync(client, "query?query=" + Uri.EscapeDataString("sum_over_time(up[1m])")));
                return series.Length == Instance.Services.Length && series.All(one => Values(one).All(value => value >= count));
            }
            catch (HttpRequestException)
            {
                return false; // not listening yet
            }
        });

    private static IEnumerable<(string Where, string Query)> Queries(JsonElement dashboard) =>
        from panel in dashboard.GetProperty("panels").EnumerateArray()
        where panel.TryGetProperty("targets", out _)
        from target in panel.GetProperty("targets").EnumerateArray()
        select (panel.GetProperty("title").GetString()!, Substitute(target.GetProperty("expr").GetString()!));

    private static string Substitute(string query) =>
        query.Replace("$__rate_interval", RateInterval, StringComparison.Ordinal).Replace("$network", ".*", StringComparison.Ordinal);

    /// <summary>Null: there are series, and numbers in them.</summary>
    private static async Task<string?> FaultOfAsync(HttpClient client, string query)
    {
        if (Variable().IsMatch(query))
            return "a variable that is not known here";
        double now = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds() / 1000.0;
        using JsonDocument answer = await GetAsync(client, FormattableString.Invariant($"query_range?query={Uri.EscapeDataString(query)}&start={now - 15}&end={now}&step=5"));
        if (answer.RootElement.GetProperty("status").GetString() != "success")
            return answer.RootElement.GetProperty("error").GetString();
        JsonElement[] series = Series(answer);
        if (series.Length == 0)
            return "nothing";
        return series.Any(one => Values(one).Any(double.IsFinite)) ? null : "no numbers";
    }

    private static async Task<List<string>> FaultsOfVariablesAsync(HttpClient client, JsonElement dashboard)
    {
        var faults = new List<string>();
        foreach (JsonElement variable in dashboard.GetProperty("templating").GetProperty("list").EnumerateArray())
        {
            Match query = LabelValues().Match(variable.GetProperty("definition").GetString()!);
            using JsonDocument answer = await GetAsync(client, $"label/{query.Groups[2].Value}/values?match[]={query.Groups[1].Value}");
            if (!query.Success || !answer.RootElement.GetProperty("data").EnumerateArray().Any(value => value.GetString() == "vmnet8"))
                faults.Add($"variable {variable.GetProperty("name")}: {answer.RootElement}");
        }
        return faults;
    }

    /// <summary>Prometheus evaluates each without error, and each asks for series that there are: a rule on a name that nobody exports never fires.</summary>
    private static async Task AssertRulesAsync(HttpClient client)
    {
        using JsonDocument rules = await GetAsync(client, "rules");
        JsonElement[] all = [.. rules.RootElement.GetProperty("data").GetProperty("groups").EnumerateArray().SelectMany(group => group.GetProperty("rules").EnumerateArray())];
        Assert.InRange(all.Length, 10, 100);
        foreach (JsonElement rule in all)
        {
            string name = rule.GetProperty("name").GetString()!, query = rule.GetProperty("query").GetString()!;
            Assert.True(rule.GetProperty("health").GetString() == "ok", rule.ToString());
            string[] metrics = [.. Metric().Matches(query).Select(match => match.Value).Distinct()];
            Assert.NotEmpty(metrics);
            foreach (string metric in metrics)
            {
                using JsonDocument answer = await GetAsync(client, $"query?query={metric}");
                Assert.True(Series(answer).Length > 0, $"{name}: there is no {metric}");
            }
        }
        Assert.DoesNotContain(all, rule => rule.GetProperty("name").GetString() == "VNetMeshServiceDown" && rule.GetProperty("state").GetString() == "firing");
    }

    private static async Task<JsonDocument> GetAsync(HttpClient client, string path)
    {
        using HttpResponseMessage response = await client.GetAsync(path, Cancellation);
        return JsonDocument.Parse(await response.Content.ReadAsStringAsync(Cancellation));
    }

    private static JsonElement[] Series(JsonDocument answer) => [.. answer.RootElement.GetProperty("data").GetProperty("result").EnumerateArray()];

    private static IEnumerable<double> Values(JsonElement series) =>
        (series.TryGetProperty("values", out JsonElement values) ? [.. values.EnumerateArray()] : (JsonElement[])[series.GetProperty("value")]).Select(value => Number(value[1].GetString()!));

    private static double Number(string text) => text switch
    {
        "+Inf" => double.PositiveInfinity,
        "-Inf" => double.NegativeInfinity,
        _ => double.Parse(text, CultureInfo.InvariantCulture),
    };

    [GeneratedRegex(@"- alert: (\w+)")]
    private static partial Regex Alert();

    [GeneratedRegex(@"\$\w+")]
    private static partial Regex Variable();

    [GeneratedRegex(@"^label_values\((\w+), (\w+)\)$")]
    private static partial Regex LabelValues();

    // Not the labels: those stand before = or within by (…).
    [GeneratedRegex(@"\b(up|target_info|dotnet_\w+|process_\w+|vnetmesh_(switch|nat|dhcp|agent|loop)_\w+)\b(?=\s*[{\[)>=]|$)(?!\s*=~?"")")]
    private static partial Regex Metric();
}
