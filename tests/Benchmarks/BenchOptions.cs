using System.CommandLine;
using VNetMesh.Benchmarks.Rows;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks;

/// <summary>The command line.</summary>
internal sealed class BenchOptions
{
    public BenchOptions()
    {
        Seconds.Validators.Add(result => InRange(result, Seconds, 1, 60));
        Rounds.Validators.Add(result => InRange(result, Rounds, 1, 50));
        Rows.Validators.Add(result =>
        {
            foreach (string name in result.GetValue(Rows) ?? [])
            {
                if (Catalogue.Find(name).Count == 0)
                    result.AddError($"there is no row '{name}'; --list tells all");
            }
        });
        Systems.Validators.Add(result =>
        {
            foreach (string name in (result.GetValue(Systems) ?? []).Except([SystemNames.VNetMesh, .. SystemNames.Peers]))
                result.AddError($"there is no system '{name}'");
        });
        Root = new RootCommand("Measures VNetMesh and its peers on the same work, in namespaces that are connected to nothing else.")
        {
            Rows, Systems, Rounds, Seconds, List, Passt, Json, Markdown, From, Keep,
        };
        Root.SetAction((parsed, cancellation) => new BenchRun(this, parsed).RunAsync(cancellation));
    }

    public RootCommand Root { get; }
    public Option<string[]> Rows { get; } = new("--row") { Description = "Only this row, or all that begin with it (nat-tcp); may be repeated", DefaultValueFactory = _ => [] };
    public Option<string[]> Systems { get; } = new("--system") { Description = "Only this system (vnetmesh, bridge, vde_switch, veth, pasta, slirp4netns); may be repeated", DefaultValueFactory = _ => [] };
    public Option<int> Rounds { get; } = new("--rounds") { Description = "Rounds of each row, 1 to 50", DefaultValueFactory = _ => 3 };
    public Option<int> Seconds { get; } = new("--seconds") { Description = "Seconds that a measurement counts, 1 to 60", DefaultValueFactory = _ => 3 };
    public Option<bool> List { get; } = new("--list") { Description = "Name the rows and end" };
    public Option<string> Passt { get; } = new("--passt") { Description = "Another pasta program than Debian's", DefaultValueFactory = _ => "pasta" };
    public Option<string?> Json { get; } = new("--json") { Description = "Write the results to this file as JSON" };
    public Option<string?> Markdown { get; } = new("--markdown") { Description = "Write the table to this file as Markdown" };
    public Option<string[]> From { get; } = new("--from") { Description = "Measure nothing: show what earlier runs wrote by --json; may be repeated", DefaultValueFactory = _ => [] };
    public Option<bool> Keep { get; } = new("--keep") { Description = "Leave namespaces and programs standing at the end; the next run takes them away" };

    private static void InRange(System.CommandLine.Parsing.OptionResult result, Option<int> option, int least, int most)
    {
        if (result.GetValue(option) is var value && (value < least || value > most))
            result.AddError($"{option.Name} must be {least} to {most}");
    }
}
