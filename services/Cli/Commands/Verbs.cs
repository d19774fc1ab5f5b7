using System.CommandLine;
using Google.Protobuf;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;

namespace VNetMesh.Cli.Commands;

/// <summary>The verbs that most nouns share: a listing, one thing in full, a removal.</summary>
internal static class Verbs
{
    /// <summary>`NAME [--json]`: everything of its kind.</summary>
    public static Command List<T>(string name, string description, Output output, Func<CancellationToken, Task<IReadOnlyList<T>>> fetch, Action<IReadOnlyList<T>> table)
        where T : IMessage
    {
        var command = new Command(name, description);
        Option<bool> json = RootCommands.JsonOption();
        command.Add(json);
        command.SetAction(async (parsed, cancellation) => Write(output, parsed.GetValue(json), await fetch(cancellation), table));
        return command;
    }

    /// <summary>`NAME [NETWORK] [--json]`: what a network has, or all of them. <paramref name="fetch"/> gets the parent's full name.</summary>
    public static Command ListOf<T>(string name, string description, Output output, Func<string, CancellationToken, Task<IReadOnlyList<T>>> fetch, Action<IReadOnlyList<T>> table, bool networkRequired = false)
        where T : IMessage
    {
        var command = new Command(name, description);
        var network = new Argument<string?>("network")
        {
            Arity = networkRequired ? ArgumentArity.ExactlyOne : ArgumentArity.ZeroOrOne,
            Description = networkRequired ? "The network, e.g. vmnet8" : "Only this network, e.g. vmnet8",
        };
        Option<bool> json = RootCommands.JsonOption();
        command.Add(network);
        command.Add(json);
        command.SetAction(async (parsed, cancellation) =>
            Write(output, parsed.GetValue(json), await fetch(Names.NetworkOrAll(parsed.GetValue(network)), cancellation), table));
        return command;
    }

    /// <summary>`show NAME [--json]`.</summary>
    public static Command Show<T>(string description, Argument<string> name, Output output, Func<string, CancellationToken, Task<T>> fetch, Action<T> fields)
        where T : IMessage
    {
        var command = new Command("show", description);
        Option<bool> json = RootCommands.JsonOption();
        command.Add(name);
        command.Add(json);
        command.SetAction(async (parsed, cancellation) =>
        {
            T found = await fetch(parsed.GetRequiredValue(name), cancellation);
            if (parsed.GetValue(json))
                output.WriteJson(found);
            else
                fields(found);
            return ExitCode.Ok;
        });
        return command;
    }

    /// <summary>`rm NAME`.</summary>
    public static Command Remove(string description, Argument<string> name, Func<string, CancellationToken, Task> remove)
    {
        var command = new Command("rm", description);
        command.Add(name);
        command.SetAction(async (parsed, cancellation) =>
        {
            await remove(parsed.GetRequiredValue(name), cancellation);
            return ExitCode.Ok;
        });
        return command;
    }

    private static int Write<T>(Output output, bool json, IReadOnlyList<T> all, Action<IReadOnlyList<T>> table)
        where T : IMessage
    {
        if (json)
            output.WriteJson(all);
        else
            table(all);
        return ExitCode.Ok;
    }
}
