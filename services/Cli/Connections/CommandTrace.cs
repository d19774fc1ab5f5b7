using System.CommandLine;
using System.CommandLine.Parsing;
using System.Diagnostics;
using VNetMesh.Hosting;

namespace VNetMesh.Cli.Connections;

/// <summary>The span of one command, of which what the services do for it are the children; only where traces are exported.</summary>
internal sealed class CommandTrace : IDisposable
{
    private static readonly ActivitySource Source = new("VNetMesh.Cli");

    private readonly IDisposable _export;
    private readonly Activity? _span;

    private CommandTrace(IDisposable export, string command)
    {
        _export = export;
        _span = Source.StartActivity("vnet");
        _span?.DisplayName = command;
    }

    /// <summary>The span is called as the command is, without its arguments, which may be anybody's names: "vnet guest add".</summary>
    public static CommandTrace? Begin(ParseResult parsed)
    {
        // The supervisor lives for days: it is no command that one waits for.
        if (parsed.CommandResult.Command.Hidden)
            return null;
        return Telemetry.TraceCommand("cli", Source.Name) is { } export ? new CommandTrace(export, ("vnet " + PathOf(parsed)).TrimEnd()) : null;
    }

    /// <summary>The command's words, each followed by a space: "guest add ".</summary>
    public static string PathOf(ParseResult parsed)
    {
        string path = "";
        for (SymbolResult? at = parsed.CommandResult; at is CommandResult { Command: not RootCommand } command; at = at.Parent)
            path = command.Command.Name + " " + path;
        return path;
    }

    public void End(int exitCode)
    {
        _span?.SetTag("process.exit.code", exitCode);
        if (exitCode != ExitCode.Ok)
            _span?.SetStatus(ActivityStatusCode.Error);
    }

    public void Dispose()
    {
        _span?.Dispose();
        _export.Dispose();
    }
}
