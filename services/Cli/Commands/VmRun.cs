using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Runtime.InteropServices;
using VNetMesh.Cli.Connections;
using VNetMesh.Native;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>
/// vm run: becomes QEMU, with the VM's network in its arguments. Nothing of ours stays between QEMU and whoever started it: its
/// process id, its terminal, its signals and its exit code are its own.
/// </summary>
internal static class VmRun
{
    private const string Separator = "--";

    public static Command Create(Services services)
    {
        var command = new Command("run", "Run QEMU with a VM's port on the fast path, by a TAP that is handed to it");
        var words = new Argument<string[]>("name") { HelpName = "[NAME] -- COMMAND", Arity = ArgumentArity.ZeroOrMore, Description = "The VM (by default the first of vm1, vm2, … that is idle), and QEMU with its other arguments" };
        Option<string> network = VmCommands.NetworkOption(), mac = VmCommands.MacOption(), model = VmCommands.ModelOption();
        command.Add(words);
        foreach (Option option in (Option[])[network, mac, model])
            command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            (string? name, string[] program) = Split(parsed);
            string wanted = Names.Network(parsed.GetRequiredValue(network));
            name ??= Choose(await GuestCommands.AllAsync(services, cancellation), wanted);
            Guest guest = await VmCommands.EnsureAsync(services, name, wanted, parsed.GetRequiredValue(mac), VmLink.Tap, cancellation);
            uint mtu = await VmCommands.MtuAsync(services, wanted, cancellation);
            FileDescriptor? tap = guest.VmLink == VmLink.Tap ? VmTap.Ask(name, guest.VmSocket) : null;
            Become([.. program, .. VmCommands.Arguments(guest, mtu, parsed.GetRequiredValue(model), tap?.Number)], tap);
            return ExitCode.Failed;
        });
        return command;
    }

    /// <summary>The name in front of the two dashes, where there is one, and the command behind them.</summary>
    /// <exception cref="CliException">There is no command, or there are several names.</exception>
    public static (string? Name, string[] Command) Split(ParseResult parsed)
    {
        string[] words = [.. parsed.CommandResult.Children.OfType<ArgumentResult>().SelectMany(result => result.Tokens).Select(token => token.Value)];
        string[] command = [.. parsed.Tokens.SkipWhile(token => token.Type != TokenType.DoubleDash).Skip(1).Select(token => token.Value)];
        if (command.Length == 0)
            throw new CliException(ExitCode.Usage, $"what is to be run stands behind '{Separator}': vnet vm run web1 --network vmnet8 {Separator} qemu-system-x86_64 …");
        return (words.Length - command.Length) switch
        {
            0 => (null, command),
            1 => (words[0], command),
            _ => throw new CliException(ExitCode.Usage, $"there is one name in front of '{Separator}', not several"),
        };
    }

    /// <summary>The first of vm1, vm2, … that is a VM of the network which does not run, or nobody's name.</summary>
    public static string Choose(IReadOnlyList<Guest> guests, string network)
    {
        for (int number = 1; ; number++)
        {
            string name = string.Create(CultureInfo.InvariantCulture, $"vm{number}");
            if (guests.FirstOrDefault(guest => Names.Short(guest.Name) == name) is not { } there || (there.Kind == GuestKind.Vm && there.Network == network && there.State == GuestState.Starting))
                return name;
        }
    }

    private static unsafe void Become(string[] words, FileDescriptor? tap)
    {
        if (tap is not null)
            Syscall.Check(Fcntl.fcntl(tap.Number, Fcntl.F_SETFD, 0), "fcntl(F_SETFD)");
        // What this runtime ignores, the program would ignore too.
        _ = SysSignal.signal(SysSignal.SIGPIPE, SysSignal.SIG_DFL);
        byte** arguments = (byte**)NativeMemory.AllocZeroed((nuint)words.Length + 1, (nuint)sizeof(byte*));
        for (int i = 0; i < words.Length; i++)
            arguments[i] = (byte*)Marshal.StringToCoTaskMemUTF8(words[i]);
        _ = Unistd.execvp(words[0], arguments);
        int errno = Syscall.Errno;
        tap?.Dispose();
        throw errno == NativeErrno.ENOENT
            ? new CliException(ExitCode.NotFound, $"there is no program '{words[0]}': is it installed?")
            : new CliException(ExitCode.Failed, $"'{words[0]}' cannot be run: {new System.ComponentModel.Win32Exception(errno).Message}");
    }
}
