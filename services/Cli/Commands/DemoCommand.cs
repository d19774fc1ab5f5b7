using System.CommandLine;
using System.Net;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Demo;
using VNetMesh.Cli.Rendering;

namespace VNetMesh.Cli.Commands;

/// <summary>demo, and the hidden serve.</summary>
internal static class DemoCommand
{
    public static Command Create(Services services, Output output)
    {
        var command = new Command("demo", "Start the services, make guests, and show them at work");
        var clean = new Option<bool>("--clean") { Description = "Take the demo's guests and its outside world away again; the services stay up" };
        command.Add(clean);
        command.SetAction(async (parsed, cancellation) =>
        {
            var scenario = new DemoScenario(services, output);
            if (parsed.GetValue(clean))
                await scenario.CleanAsync(cancellation);
            else
                await scenario.RunAsync(cancellation);
            return ExitCode.Ok;
        });
        return command;
    }

    public static Command Serve()
    {
        var command = new Command("serve", "The demo's web server") { Hidden = true };
        var address = new Argument<string>("address:port");
        command.Add(address);
        command.SetAction(async (parsed, cancellation) =>
        {
            await WebServer.RunAsync(IPEndPoint.Parse(parsed.GetRequiredValue(address)), Console.Out, cancellation);
            return ExitCode.Ok;
        });
        return command;
    }
}
