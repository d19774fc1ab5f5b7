using System.CommandLine;
using Grpc.Core;
using VNetMesh.Cli.Apply;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.Declarations;

namespace VNetMesh.Cli.Commands;

/// <summary>apply and export: the instance as a file.</summary>
internal static class ApplyCommands
{
    public static Command Apply(Services services, Output output)
    {
        var command = new Command("apply", "Bring networks, reservations, forwards and guests to what a file says");
        var path = new Option<string>("--file", "-f") { Description = "The file (docs/vnetmesh.yaml.md); - reads standard input", Required = true };
        var dryRun = new Option<bool>("--dry-run") { Description = "Show the differences and change nothing; exit code 8 where there are some" };
        var prune = new Option<bool>("--prune") { Description = "Remove what the file does not name" };
        foreach (Option option in (Option[])[path, dryRun, prune])
            command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            string file = parsed.GetRequiredValue(path), name = file == "-" ? "standard input" : file;
            var planner = new ApplyPlanner(services, await ReadAsync(file, name, cancellation), await InstanceState.ReadAsync(services, cancellation), parsed.GetValue(prune));
            IReadOnlyList<ApplyStep> steps = await planner.PlanAsync(cancellation);
            if (planner.Refusals.Count > 0)
                throw Refused(name, planner.Refusals);
            if (parsed.GetValue(dryRun))
                return Show(output, steps);
            await RunAsync(output, name, steps, cancellation);
            return ExitCode.Ok;
        });
        return command;
    }

    public static Command Export(Services services, Output output)
    {
        var command = new Command("export", "Write networks, reservations, forwards and guests as a file that apply takes back");
        var path = new Option<string?>("--output", "-o") { Description = "The file; standard output where it is not given" };
        command.Add(path);
        command.SetAction(async (parsed, cancellation) =>
        {
            string text = Exporter.Write(await InstanceState.ReadAsync(services, cancellation));
            if (parsed.GetValue(path) is { } file)
                await File.WriteAllTextAsync(file, text, cancellation);
            else
                output.Writer.Write(text);
            return ExitCode.Ok;
        });
        return command;
    }

    private static async Task<DeclarationFile> ReadAsync(string file, string name, CancellationToken cancellation)
    {
        if (file != "-" && !File.Exists(file))
            throw new CliException(ExitCode.NotFound, $"there is no file {name}; write one with: vnet export -o {name}");
        if (file != "-" && new FileInfo(file).Length > DeclarationReader.MaxFileSize)
            throw new CliException(ExitCode.Usage, $"{name} is larger than 1 MiB");
        string text = file == "-" ? await Console.In.ReadToEndAsync(cancellation) : await File.ReadAllTextAsync(file, cancellation);
        try
        {
            return DeclarationReader.Parse(text);
        }
        catch (DeclarationException exception)
        {
            throw new CliException(ExitCode.Usage, $"{name}, {exception.Message}");
        }
    }

    private static int Show(Output output, IReadOnlyList<ApplyStep> steps)
    {
        foreach (ApplyStep step in steps)
            Write(output, step);
        output.Writer.WriteLine(steps.Count == 0 ? "No differences." : $"{steps.Count} differences; nothing was changed.");
        return steps.Count == 0 ? ExitCode.Ok : ExitCode.Differs;
    }

    private static async Task RunAsync(Output output, string name, IReadOnlyList<ApplyStep> steps, CancellationToken cancellation)
    {
        foreach (ApplyStep step in steps)
        {
            try
            {
                await step.RunAsync(cancellation);
            }
            catch (RpcException exception)
            {
                throw new CliException(ErrorMap.ExitCodeOf(exception.StatusCode), $"{Where(name, step.Line)}{step.What}: {ErrorMap.MessageOf(exception)}; what was done before it stays done, and applying the file again goes on from there");
            }
            Write(output, step);
        }
        output.Writer.WriteLine(steps.Count == 0 ? "No differences: nothing was changed." : $"{steps.Count} changes made.");
    }

    private static void Write(Output output, ApplyStep step)
    {
        output.Writer.WriteLine($"{step.Sign} {step.What}");
        foreach (string detail in step.Details)
            output.Writer.WriteLine($"    {detail}");
    }

    private static CliException Refused(string name, List<ApplyRefusal> refusals) => new(ErrorMap.ExitCodeOf(refusals[0].Exception.StatusCode),
        string.Join("; ", refusals.Select(refusal => $"{Where(name, refusal.Line)}{refusal.What}: {ErrorMap.MessageOf(refusal.Exception)}")) + "; nothing was changed");

    private static string Where(string name, long line) => line > 0 ? $"{name}, line {line}: " : "";
}
