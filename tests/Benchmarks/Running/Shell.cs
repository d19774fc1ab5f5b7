using System.Diagnostics;
using System.Text;

namespace VNetMesh.Benchmarks.Running;

/// <summary>Runs programs, each with a time limit after which it and its children are ended.</summary>
public static class Shell
{
    public static readonly TimeSpan DefaultLimit = TimeSpan.FromSeconds(20);

    /// <returns>What it wrote to standard output.</returns>
    /// <exception cref="BenchmarkException">It failed or took too long; the message has the end of what it said.</exception>
    public static Task<string> RunAsync(CancellationToken cancellation, params string[] command) => RunAsync(DefaultLimit, command, null, cancellation);

    public static async Task<string> RunAsync(TimeSpan limit, IReadOnlyList<string> command, IReadOnlyDictionary<string, string>? environment, CancellationToken cancellation)
    {
        using Process process = Start(command, environment);
        Task<string> output = process.StandardOutput.ReadToEndAsync(CancellationToken.None);
        Task<string> error = process.StandardError.ReadToEndAsync(CancellationToken.None);
        process.StandardInput.Close();
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        timeout.CancelAfter(limit);
        try
        {
            await process.WaitForExitAsync(timeout.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            cancellation.ThrowIfCancellationRequested();
            throw new BenchmarkException($"{Short(command)} did not end within {limit.TotalSeconds:0} s");
        }
        // What a program left in the background may hold the pipes open; what was said by now is enough.
        await Task.WhenAny(Task.WhenAll(output, error), Task.Delay(2000, CancellationToken.None));
        string said = output.IsCompleted ? await output : "";
        if (process.ExitCode != 0)
            throw new BenchmarkException($"{Short(command)} ended with {process.ExitCode}: {LastWords(said, error.IsCompleted ? await error : "")}");
        return said;
    }

    /// <summary>A program with redirected streams, locale C.</summary>
    public static Process Start(IReadOnlyList<string> command, IReadOnlyDictionary<string, string>? environment)
    {
        var start = new ProcessStartInfo(command[0])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            StandardOutputEncoding = Encoding.UTF8,
            StandardErrorEncoding = Encoding.UTF8,
            WorkingDirectory = "/",
        };
        foreach (string argument in command.Skip(1))
            start.ArgumentList.Add(argument);
        start.Environment["LC_ALL"] = "C.UTF-8";
        start.Environment["NO_COLOR"] = "1";
        foreach ((string name, string value) in environment ?? new Dictionary<string, string>())
            start.Environment[name] = value;
        try
        {
            return Process.Start(start) ?? throw new BenchmarkException($"{command[0]} was not started");
        }
        catch (System.ComponentModel.Win32Exception exception)
        {
            throw new BenchmarkException($"{command[0]}: {exception.Message}", exception);
        }
    }

    private static string Short(IReadOnlyList<string> command)
    {
        string text = string.Join(' ', command);
        return text.Length <= 160 ? text : text[..160] + "…";
    }

    /// <summary>The end of what it said, on one line; iperf3 -J puts its error among its output.</summary>
    private static string LastWords(string output, string error)
    {
        string text = string.Join(" / ", (error.Trim().Length > 0 ? error : output).Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).TakeLast(4));
        return text.Length <= 400 ? text : "…" + text[^400..];
    }
}
