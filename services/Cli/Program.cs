using System.CommandLine;
using Grpc.Core;
using VNetMesh.Cli.Commands;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;

namespace VNetMesh.Cli;

/// <summary>The command line: a gRPC client of the services, and the one that starts and stops them natively.</summary>
internal static class Program
{
    private static async Task<int> Main(string[] args)
    {
        using var services = new Services();
        var output = Output.ForConsole();
        RootCommand root = RootCommands.Create(services, output);
        ParseResult parsed = root.Parse(args);
        if (parsed.Errors.Count > 0)
        {
            Console.Error.WriteLine($"vnet: {OneLine(parsed.Errors[0].Message)}; see: vnet {CommandTrace.PathOf(parsed)}--help");
            return ExitCode.Usage;
        }
        using CommandTrace? trace = CommandTrace.Begin(parsed);
        int code = await RunAsync(() => parsed.InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false }));
        trace?.End(code);
        return code;
    }

    /// <summary>Runs a command; an error becomes one line and an exit code.</summary>
    internal static async Task<int> RunAsync(Func<Task<int>> command)
    {
        try
        {
            return await command();
        }
        catch (CliException exception)
        {
            Console.Error.WriteLine("vnet: " + exception.Message);
            return exception.ExitCode;
        }
        catch (RpcException exception)
        {
            Console.Error.WriteLine("vnet: " + ErrorMap.MessageOf(exception));
            return ErrorMap.ExitCodeOf(exception.StatusCode);
        }
        catch (OperationCanceledException)
        {
            Console.Error.WriteLine("vnet: interrupted");
            return ExitCode.Failed;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            Console.Error.WriteLine("vnet: " + exception.Message.ReplaceLineEndings(" "));
            return exception is UnauthorizedAccessException ? ExitCode.Permission : ExitCode.Failed;
        }
    }

    private static string OneLine(string message) => string.Join(' ', message.Split(['\n', '\r', '\t'], StringSplitOptions.RemoveEmptyEntries)).TrimEnd('.');
}
