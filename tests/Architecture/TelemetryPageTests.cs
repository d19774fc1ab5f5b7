using System.Text.RegularExpressions;

namespace VNetMesh.Architecture.Tests;

/// <summary>docs/telemetry.md lists the instruments and spans that the sources make: no more, no fewer, with their kind and unit.</summary>
public sealed partial class TelemetryPageTests
{
    private static readonly string Page = File.ReadAllText(Path.Combine(ImportTests.Root, "docs", "telemetry.md"));

    [Fact]
    public void Every_instrument_is_listed_with_its_kind_and_unit()
    {
        string[] made = [.. Sources().SelectMany(source => Instrument().Matches(source)).Select(match => $"{match.Groups["name"].Value} {KindOf(match.Groups["kind"].Value)} {match.Groups["unit"].Value}").Distinct()];
        Assert.NotEmpty(made);
        string[] listed = [.. InstrumentRow().Matches(Page).Select(match => $"{match.Groups["name"].Value} {match.Groups["kind"].Value} {match.Groups["unit"].Value}")];
        Assert.Equal(made.Order(StringComparer.Ordinal), listed.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Every_instrument_says_what_it_is_in_the_words_of_the_code()
    {
        Dictionary<string, string> listed = InstrumentRow().Matches(Page).ToDictionary(match => match.Groups["name"].Value, match => match.Groups["text"].Value);
        Assert.All(Sources().SelectMany(source => Instrument().Matches(source)), match => Assert.Equal(match.Groups["text"].Value, listed[match.Groups["name"].Value]));
    }

    [Fact]
    public void Every_instrument_is_found_by_the_pattern() =>
        Assert.Equal(Sources().Sum(source => Creation().Count(source)), Sources().Sum(source => Instrument().Count(source)));

    [Fact]
    public void Every_histogram_has_bounds_of_its_own()
    {
        // Without them the SDK's stand in, which are for milliseconds: of seconds, all would be below the first.
        Assert.All(Sources().SelectMany(source => Histogram().Matches(source)), match => Assert.Contains("advice: ", match.Value, StringComparison.Ordinal));
    }

    [Fact]
    public void Every_span_is_listed()
    {
        string[] made = [.. Sources().SelectMany(source => Span().Matches(source)).Select(match => match.Groups[1].Value).Distinct()];
        string[] listed = [.. SpanRow().Matches(Page).Select(match => match.Groups[1].Value)];
        Assert.Equal(made.Order(StringComparer.Ordinal), listed.Order(StringComparer.Ordinal));
    }

    private static IEnumerable<string> Sources() => Directory.EnumerateFiles(Path.Combine(ImportTests.Root, "services"), "*.cs", SearchOption.AllDirectories).Order(StringComparer.Ordinal).Select(File.ReadAllText);

    private static string KindOf(string method) => method.Replace("Observable", "", StringComparison.Ordinal).ToLowerInvariant() switch
    {
        "updowncounter" => "up-down counter",
        string kind => kind,
    };

    [GeneratedRegex(@"\.Create(Observable)?(Counter|UpDownCounter|Gauge|Histogram)\b")]
    private static partial Regex Creation();

    [GeneratedRegex("""\.Create(?<kind>(Observable)?(Counter|UpDownCounter|Gauge|Histogram))(<\w+>)?\(\s*"(?<name>[a-z_.]+)".*?"(?<unit>s|By|1|\{[a-z_]+\})",\s*"(?<text>[^"]+)"[,)]""", RegexOptions.Singleline)]
    private static partial Regex Instrument();

    [GeneratedRegex(@"\.CreateHistogram\b.+?\);", RegexOptions.Singleline)]
    private static partial Regex Histogram();

    [GeneratedRegex(@"^\| `(?<name>[a-z_.]+)` \| (?<kind>counter|up-down counter|gauge|histogram) \| (?<unit>\S+) \| (?<text>[^|]+?) \|", RegexOptions.Multiline)]
    private static partial Regex InstrumentRow();

    [GeneratedRegex(@"StartActivity\(""([a-z_. ]+)""")]
    private static partial Regex Span();

    [GeneratedRegex(@"^\| `([a-z_. ]+)` \| (?:switch|dhcp|nat|agent|cli) \|", RegexOptions.Multiline)]
    private static partial Regex SpanRow();
}
