using System.CommandLine;
using System.Net;
using System.Text.Json;
using Grpc.Core;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Doctor;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>doctor.</summary>
internal static class DoctorCommand
{
    public static Command Create(Services services, Output output)
    {
        var command = new Command("doctor", "Find the first thing that fails, for all or for one guest, and say what to do");
        var guest = new Argument<string?>("guest") { Arity = ArgumentArity.ZeroOrOne, Description = "A guest, e.g. web1: look from inside of it" };
        var to = new Option<string?>("--to") { Description = "A server that the guest should reach, ADDRESS:PORT" };
        Option<bool> json = RootCommands.JsonOption();
        command.Add(guest);
        command.Add(to);
        command.Add(json);
        command.SetAction(async (parsed, cancellation) =>
        {
            IPEndPoint? server = ParseServer(parsed.GetValue(to), parsed.GetValue(guest));
            List<FindingView> findings = await ExamineAsync(services, parsed.GetValue(guest), server, cancellation);
            if (parsed.GetValue(json))
                output.Writer.WriteLine(JsonSerializer.Serialize(findings, FindingJson.Default.ListFindingView));
            else
                Write(output, findings);
            return findings.Exists(finding => finding.State == "fail") ? ExitCode.Failed : ExitCode.Ok;
        });
        return command;
    }

    private static IPEndPoint? ParseServer(string? text, string? guest)
    {
        if (text is null)
            return null;
        if (guest is null)
            throw new CliException(ExitCode.Usage, "--to is tried from a guest: name one, e.g. vnet doctor web1 --to 192.0.2.1:80");
        return IPEndPoint.TryParse(text, out IPEndPoint? server) && server.Port > 0
            ? server
            : throw new CliException(ExitCode.Usage, $"'{text}' is not an address and a port, e.g. 192.0.2.1:80");
    }

    /// <summary>Checks in the order in which things depend on each other, up to the first that fails.</summary>
    private static async Task<List<FindingView>> ExamineAsync(Services services, string? id, IPEndPoint? server, CancellationToken cancellation)
    {
        var findings = new List<FindingView>();
        // Without services nobody knows the guest.
        Check[] first = new InstanceChecks(services, null).BeforeGuests()[..1];
        if (id is null || await FailsAsync(first, findings, cancellation))
        {
            if (id is null)
                await FailsAsync([.. new InstanceChecks(services, null).BeforeGuests(), new InstanceChecks(services, null).Host()], findings, cancellation);
            return findings;
        }
        Guest guest = (await services.Agent.GetGuestAsync(new GetGuestRequest { Name = Names.Guest(id) }, deadline: Services.Soon, cancellationToken: cancellation)).Guest;
        Network network = (await services.Networks.GetNetworkAsync(new GetNetworkRequest { Name = guest.Network }, deadline: Services.Soon, cancellationToken: cancellation)).Network;
        var instance = new InstanceChecks(services, network.Name);
        await FailsAsync([.. instance.BeforeGuests()[1..], .. new GuestChecks(services, guest, network, server).All(), instance.Host()], findings, cancellation);
        return findings;
    }

    private static async Task<bool> FailsAsync(Check[] checks, List<FindingView> findings, CancellationToken cancellation)
    {
        bool failed = false;
        foreach (Check check in checks)
        {
            if (failed)
            {
                findings.Add(new FindingView(check.Name, "unchecked", "", ""));
                continue;
            }
            Finding finding = await MakeAsync(check, cancellation);
            failed = finding.IsGood == false;
            findings.Add(new FindingView(check.Name, finding.IsGood switch { true => "ok", false => "fail", null => "skipped" }, finding.Text, finding.Advice));
        }
        return failed;
    }

    private static async Task<Finding> MakeAsync(Check check, CancellationToken cancellation)
    {
        try
        {
            return await check.Make(cancellation);
        }
        catch (RpcException exception) when (exception.StatusCode != StatusCode.Cancelled)
        {
            return Finding.Bad(ErrorMap.MessageOf(exception), "see: vnet status");
        }
        catch (IOException exception)
        {
            return Finding.Bad(exception.Message.ReplaceLineEndings(" "), "see: vnet status");
        }
    }

    private static void Write(Output output, List<FindingView> findings)
    {
        foreach (FindingView finding in findings)
        {
            string mark = finding.State switch { "ok" => "ok", "fail" => "FAIL", _ => "–" };
            output.Writer.WriteLine($"{mark,-5} {finding.Check,-10} {(finding.State == "unchecked" ? "not checked" : finding.Text)}");
            if (finding.Advice.Length > 0)
                output.Writer.WriteLine($"{"",-16} → {finding.Advice}");
        }
    }
}
