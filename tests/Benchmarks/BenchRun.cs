using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Rows;
using VNetMesh.Benchmarks.Running;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks;

/// <summary>One call of the program.</summary>
internal sealed class BenchRun(BenchOptions options, ParseResult parsed)
{
    private const int Failed = 1, Usage = 2, Interrupted = 130;
    private readonly TextWriter _out = Console.Out;
    private readonly TextWriter _progress = Console.Error;

    public async Task<int> RunAsync(CancellationToken cancellation)
    {
        if (parsed.GetValue(options.List))
        {
            foreach (Row row in Catalogue.Rows)
                await _out.WriteLineAsync($"{row.Name,-24} {row.Metrics[0].Title.Trim()}, {row.Metrics[0].Unit}  ({string.Join(", ", row.Systems)})");
            return 0;
        }
        string[] files = parsed.GetValue(options.From) ?? [];
        return files.Length > 0 ? await ShowAsync(files) : await MeasureAsync(cancellation);
    }

    private async Task<int> ShowAsync(string[] files)
    {
        var all = new List<MetricResult>();
        RunFacts? facts = null;
        foreach (string file in files)
        {
            try
            {
                (RunFacts theirs, IReadOnlyList<MetricResult> results) = Report.FromJson(await File.ReadAllTextAsync(file));
                facts = theirs;
                all.AddRange(results.Where(result => !result.Metric.Name.StartsWith(NatRows.BestPrefix, StringComparison.Ordinal)));
            }
            catch (Exception exception) when (exception is JsonException or IOException)
            {
                await _progress.WriteLineAsync($"bench: {file}: {exception.Message}");
                return Usage;
            }
        }
        string[] order = [.. Catalogue.Rows.SelectMany(row => row.Metrics).Select(metric => metric.Name)];
        await WriteAsync(facts!, Runner.WithBest([.. all.OrderBy(result => Array.IndexOf(order, result.Metric.Name))]));
        return 0;
    }

    private async Task<int> MeasureAsync(CancellationToken cancellation)
    {
        if (!Environment.IsPrivilegedProcess)
        {
            await _progress.WriteLineAsync("bench: must be run as root: it makes network namespaces and devices");
            return 3;
        }
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        using PosixSignalRegistration interrupt = StopAt(PosixSignal.SIGINT, stop), terminate = StopAt(PosixSignal.SIGTERM, stop), hangUp = StopAt(PosixSignal.SIGHUP, stop);
        string[] names = parsed.GetValue(options.Rows) ?? [];
        IReadOnlyList<Row> rows = names.Length == 0 ? Catalogue.Rows : [.. names.SelectMany(Catalogue.Find).Distinct()];
        string[] systems = parsed.GetValue(options.Systems) ?? [];
        if (systems.Length > 0)
            rows = [.. rows.Select(row => row with { Systems = [.. row.Systems.Intersect(systems)] }).Where(row => row.Systems.Count > 0)];
        int rounds = parsed.GetValue(options.Rounds), seconds = parsed.GetValue(options.Seconds);
        string passt = parsed.GetValue(options.Passt)!;

        Lab lab = await Lab.OpenAsync(passt, stop.Token);
        var runner = new Runner(lab, new RunSettings(seconds), rounds, _progress);
        bool interrupted = false;
        try
        {
            await runner.RunAsync(rows, stop.Token);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            interrupted = true;
            await _progress.WriteLineAsync("interrupted; taking everything away");
        }
        finally
        {
            if (!parsed.GetValue(options.Keep))
                await lab.DisposeAsync();
        }
        IReadOnlyList<MetricResult> results = Runner.WithBest(runner.Results);
        await WriteAsync(await FactsAsync(lab, passt, rounds, seconds), results);
        bool anyOfOurs = results.Any(result => result.MedianOf(SystemNames.VNetMesh) is not null);
        return interrupted ? Interrupted : anyOfOurs ? 0 : Failed;
    }

    private async Task WriteAsync(RunFacts facts, IReadOnlyList<MetricResult> results)
    {
        await _out.WriteLineAsync();
        await _out.WriteLineAsync(Describe(facts));
        await _out.WriteLineAsync();
        await _out.WriteAsync(Table.Render(results, markdown: false));
        if (parsed.GetValue(options.Json) is { } json)
            await File.WriteAllTextAsync(json, Report.ToJson(facts, results));
        if (parsed.GetValue(options.Markdown) is { } markdown)
            await File.WriteAllTextAsync(markdown, Describe(facts) + "\n\n" + Table.Render(results, markdown: true));
    }

    private static string Describe(RunFacts facts) => string.Create(CultureInfo.InvariantCulture,
        $"{facts.Time:yyyy-MM-dd HH:mm} UTC; {facts.Cores} cores, Linux {facts.Kernel}; medians of {facts.Rounds} rounds of {facts.Seconds} s; TCP congestion control {facts.CongestionControl} in every namespace; "
        + $"{string.Join(", ", facts.Versions.Select(version => $"{version.Key} {version.Value}"))}. In brackets: VNetMesh divided by the peer.");

    private static async Task<RunFacts> FactsAsync(Lab lab, string passt, int rounds, int seconds)
    {
        // Major and minor number alone: what a distribution adds to them names the machine's image.
        string kernel = string.Join('.', Environment.OSVersion.Version.ToString().Split('.').Take(2));
        var versions = new Dictionary<string, string>();
        foreach (string program in new[] { passt, "slirp4netns", "vde_switch", "iperf3", "wrk", "nginx" })
            versions[Path.GetFileName(program)] = await Versions.OfAsync(program);
        return new RunFacts(DateTime.UtcNow, Environment.ProcessorCount, kernel, rounds, seconds, lab.CongestionControl, versions);
    }

    private static PosixSignalRegistration StopAt(PosixSignal signal, CancellationTokenSource stop) => PosixSignalRegistration.Create(signal, context =>
    {
        context.Cancel = true;
        stop.Cancel();
    });
}
