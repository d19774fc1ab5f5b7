using System.CommandLine;
using System.Globalization;
using Google.Protobuf.WellKnownTypes;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.Cli.Supervision;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>log show, level.</summary>
internal static class LogCommands
{
    private static readonly TimeSpan FollowInterval = TimeSpan.FromMilliseconds(200);

    public static Command Create(Services services, Output output) => new("log", "What the services log, and how much")
    {
        Show(services, output),
        Level(services, output),
    };

    private static Command Show(Services services, Output output)
    {
        var command = new Command("show", "Print the end of a service's log");
        Argument<string> service = ServiceArgument(required: true);
        var lines = new Option<int>("--lines", "-n") { Description = "How many lines", DefaultValueFactory = _ => 50 };
        var follow = new Option<bool>("--follow", "-f") { Description = "Go on with what is logged from now on" };
        command.Add(service);
        command.Add(lines);
        command.Add(follow);
        command.SetAction(async (parsed, cancellation) =>
        {
            string file = Supervisor.LogFile(services.Paths.RunDirectory, parsed.GetRequiredValue(service));
            if (!File.Exists(file))
                throw new CliException(ExitCode.NotFound, $"there is no {file}: only services that `vnet up` started log there; under Docker see: docker compose logs");
            foreach (string line in RotatingLog.Tail(file, Math.Max(0, parsed.GetValue(lines))))
                output.Writer.WriteLine(line);
            if (parsed.GetValue(follow))
                await FollowAsync(file, output.Writer, cancellation);
            return ExitCode.Ok;
        });
        return command;
    }

    private static async Task FollowAsync(string file, TextWriter writer, CancellationToken cancellation)
    {
        long position = new FileInfo(file).Length;
        try
        {
            while (true)
            {
                await Task.Delay(FollowInterval, cancellation);
                long length = new FileInfo(file).Length;
                // Rotated: what follows stands in a new file.
                if (length < position)
                    position = 0;
                if (length == position)
                    continue;
                using var reader = new StreamReader(new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete));
                reader.BaseStream.Seek(position, SeekOrigin.Begin);
                writer.Write(await reader.ReadToEndAsync(cancellation));
                position = reader.BaseStream.Position;
            }
        }
        catch (OperationCanceledException)
        {
            // Ctrl-C is how one stops to follow.
        }
    }

    private static Command Level(Services services, Output output)
    {
        var command = new Command("level", "Show or change how much a running service logs");
        Argument<string> service = ServiceArgument(required: false);
        var level = new Argument<string?>("level") { Arity = ArgumentArity.ZeroOrOne, Description = "trace, debug, information, warning, error, critical, none; or default: as it was started" };
        var category = new Option<string>("--category") { Description = "Only loggers whose names begin so, e.g. VNetMesh.Nat.Forwards", DefaultValueFactory = _ => "" };
        var period = new Option<double?>("--for") { Description = "Seconds after which it goes back to what it was, 1 to 86400" };
        Option<bool> json = RootCommands.JsonOption();
        command.Add(service);
        command.Add(level);
        command.Add(category);
        command.Add(period);
        command.Add(json);
        command.SetAction(async (parsed, cancellation) =>
        {
            string? one = parsed.GetValue(service);
            if (parsed.GetValue(level) is { } word)
            {
                var request = new SetLogRuleRequest
                {
                    Rule = new LogRule { Category = parsed.GetRequiredValue(category), Severity = ParseSeverity(word) },
                    Duration = parsed.GetValue(period) is { } seconds ? Duration.FromTimeSpan(TimeSpan.FromSeconds(seconds)) : null,
                };
                await services.Diagnostics(one!).SetLogRuleAsync(request, deadline: Services.Soon, cancellationToken: cancellation);
            }
            var all = new List<(string Service, LogRule Rule)>();
            foreach (string name in one is null ? Services.Names : [one])
            {
                ListLogRulesResponse response = await services.Diagnostics(name).ListLogRulesAsync(new ListLogRulesRequest(), deadline: Services.Soon, cancellationToken: cancellation);
                all.AddRange(response.Rules.Select(rule => (name, rule)));
            }
            if (parsed.GetValue(json))
                output.Writer.WriteLine(System.Text.Json.JsonSerializer.Serialize(all.ConvertAll(LogRuleView.Of), LogRuleJson.Default.ListLogRuleView));
            else
                output.WriteTable(["service", "category", "level", "until"], [.. all.Select(Row)], "");
            return ExitCode.Ok;
        });
        return command;
    }

    private static string[] Row((string Service, LogRule Rule) entry) =>
        [entry.Service, entry.Rule.Category.Length == 0 ? "everything else" : entry.Rule.Category, Units.Name(entry.Rule.Severity),
            entry.Rule.ExpireTime is { } time ? time.ToDateTime().ToString("HH:mm:ss'Z'", CultureInfo.InvariantCulture) : "it ends"];

    private static Argument<string> ServiceArgument(bool required)
    {
        var service = new Argument<string>("service") { Arity = required ? ArgumentArity.ExactlyOne : ArgumentArity.ZeroOrOne, Description = "switch, dhcp, nat or agent" };
        service.AcceptOnlyFromAmong(Services.Names);
        return service;
    }

    private static LogSeverity ParseSeverity(string word) =>
        word.Equals("default", StringComparison.OrdinalIgnoreCase) ? LogSeverity.Unspecified
        : System.Enum.TryParse(word, ignoreCase: true, out LogSeverity severity) && System.Enum.IsDefined(severity) && !char.IsAsciiDigit(word[0]) ? severity
        : throw new CliException(ExitCode.Usage, $"'{word}' is no level: trace, debug, information, warning, error, critical, none or default");
}

/// <param name="Service">switch, dhcp, nat or agent.</param>
/// <param name="Category">The beginning of logger names; empty: what no other rule names.</param>
/// <param name="Level">trace to none.</param>
/// <param name="Expires">When it goes back to what it was; null: when the service ends.</param>
internal sealed record LogRuleView(string Service, string Category, string Level, DateTime? Expires)
{
    public static LogRuleView Of((string Service, LogRule Rule) entry) =>
        new(entry.Service, entry.Rule.Category, Units.Name(entry.Rule.Severity), entry.Rule.ExpireTime?.ToDateTime());
}

[System.Text.Json.Serialization.JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = System.Text.Json.Serialization.JsonKnownNamingPolicy.CamelCase)]
[System.Text.Json.Serialization.JsonSerializable(typeof(List<LogRuleView>))]
internal sealed partial class LogRuleJson : System.Text.Json.Serialization.JsonSerializerContext;
