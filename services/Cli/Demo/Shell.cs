using System.Diagnostics;
using VNetMesh.Cli.Connections;
using VNetMesh.Hosting;

namespace VNetMesh.Cli.Demo;

/// <summary>Runs a program to its end.</summary>
internal static class Shell
{
    /// <returns>Its standard output.</returns>
    /// <exception cref="CliException">It failed: with what it said.</exception>
    public static string Run(params string[] command)
    {
        (int code, string output, string error) = Try(command);
        return code == 0 ? output : throw new CliException(ExitCode.Failed, $"'{string.Join(' ', command)}' failed: {(error.Length > 0 ? error : output).Trim().ReplaceLineEndings(" ")}");
    }

    /// <summary>For what may fail.</summary>
    public static (int Code, string Output, string Error) Try(params string[] command)
    {
        using Process process = Process.Start(new ProcessStartInfo(command[0], command.Skip(1)) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true })
            ?? throw new CliException(ExitCode.Failed, $"{command[0]} cannot be run");
        process.StandardInput.Close();
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output, error.Result);
    }

    /// <summary>
    /// Runs `ip netns …` where its bind mounts are seen by all: `ip netns exec` gives what it starts a mount namespace of its
    /// own, and a namespace that is made in there is gone for everybody else.
    /// </summary>
    public static (int Code, string Output, string Error) TryNetns(params string[] arguments) =>
        !HostMounts.SharesNamespacesWithHost() && Try("nsenter", "--mount=/proc/1/ns/mnt", "true").Code == 0
            ? Try(["nsenter", "--mount=/proc/1/ns/mnt", "ip", "netns", .. arguments])
            : Try(["ip", "netns", .. arguments]);
}
