using System.ComponentModel;
using System.Diagnostics;

namespace VNetMesh.Agent.Namespaces;

/// <summary>Runs a short program of the host's and waits for it.</summary>
public static class Command
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(10);

    /// <returns>What it wrote to its standard output.</returns>
    /// <exception cref="CommandException">It is not there, failed, or took more than 10 s.</exception>
    public static string Run(string program, params ReadOnlySpan<string> arguments) => RunWithInput(program, "", arguments);

    /// <param name="input">What it reads from its standard input.</param>
    /// <exception cref="CommandException">It is not there, failed, or took more than 10 s.</exception>
    public static string RunWithInput(string program, string input, params ReadOnlySpan<string> arguments)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        string line = $"{program} {string.Join(' ', start.ArgumentList)}";
        try
        {
            using Process process = Process.Start(start)!;
            Task<string> output = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
            process.StandardInput.Write(input);
            process.StandardInput.Close();
            if (!process.WaitForExit(Limit))
            {
                process.Kill();
                throw new CommandException(line, "it took more than 10 s");
            }
            return process.ExitCode == 0 ? output.GetAwaiter().GetResult() : throw new CommandException(line, error.GetAwaiter().GetResult().Trim());
        }
        catch (Win32Exception exception)
        {
            throw new CommandException(line, exception.Message);
        }
    }
}

/// <summary>A program of the host's failed.</summary>
public sealed class CommandException(string command, string why) : IOException($"'{command}' failed: {why}");
