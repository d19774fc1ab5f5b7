using System.Diagnostics;
using System.Text;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>What a command did. <see cref="ToString"/> tells all of it, for the message of a failure.</summary>
public sealed record CommandResult(string Command, int ExitCode, string Output, string Error, TimeSpan Elapsed)
{
    public CommandResult EnsureSuccess()
    {
        Assert.True(ExitCode == 0, $"the command should have succeeded\n{this}");
        return this;
    }

    public override string ToString() =>
        $"$ {Command}\nexit code {ExitCode} after {Elapsed.TotalSeconds:0.00} s\n{Limit(Output)}{(Error.Length > 0 ? "\nstderr: " + Limit(Error) : "")}";

    private static string Limit(string text) => text.Length <= 4000 ? text.TrimEnd() : text[..2000] + "\n…\n" + text[^2000..].TrimEnd();
}

/// <summary>Runs commands. Each has a time limit, after which it and its children are ended and the test fails.</summary>
public static class Command
{
    public static readonly TimeSpan DefaultLimit = TimeSpan.FromSeconds(20);

    public static Task<CommandResult> RunAsync(params string[] command) => RunAsync(DefaultLimit, command);

    public static async Task<CommandResult> RunAsync(TimeSpan limit, IReadOnlyList<string> command, IReadOnlyDictionary<string, string>? environment = null, string? input = null)
    {
        var watch = Stopwatch.StartNew();
        using Process process = Start(command, environment);
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> error = process.StandardError.ReadToEndAsync();
        if (input is not null)
            await process.StandardInput.WriteAsync(input);
        process.StandardInput.Close();
        using var timeout = new CancellationTokenSource(limit);
        try
        {
            await process.WaitForExitAsync(timeout.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            string partial = await Task.WhenAny(output, Task.Delay(1000)) == output ? await output : "(output still open)";
            string partialError = await Task.WhenAny(error, Task.Delay(1000)) == error ? await error : "";
            Assert.Fail($"the command did not end within {limit.TotalSeconds:0} s\n{new CommandResult(string.Join(' ', command), -1, partial, partialError, watch.Elapsed)}");
        }
        // A daemon that the command left behind may hold the pipes open; what was said by now is enough.
        await Task.WhenAny(Task.WhenAll(output, error), Task.Delay(2000));
        return new CommandResult(string.Join(' ', command), process.ExitCode,
            output.IsCompleted ? await output : "(output still held open by a child)", error.IsCompleted ? await error : "", watch.Elapsed);
    }

    internal static Process Start(IReadOnlyList<string> command, IReadOnlyDictionary<string, string>? environment)
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
        return Process.Start(start) ?? throw new InvalidOperationException("no process was started");
    }
}

/// <summary>A command that runs beside the test; ended with its children when disposed.</summary>
public sealed class BackgroundCommand : IAsyncDisposable
{
    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly string _command;
    private bool _disposed;

    private BackgroundCommand(IReadOnlyList<string> command)
    {
        _command = string.Join(' ', command);
        _process = Command.Start(command, null);
        _process.OutputDataReceived += (_, line) => Append(line.Data);
        _process.ErrorDataReceived += (_, line) => Append(line.Data);
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
        _process.StandardInput.Close();
    }

    public int ProcessId => _process.Id;
    public bool HasExited => _process.HasExited;
    public string Output { get { lock (_output) return $"$ {_command}\n{_output}"; } }

    public static BackgroundCommand Start(params string[] command) => new(command);

    public async Task<int> WaitAsync(TimeSpan limit)
    {
        using var timeout = new CancellationTokenSource(limit);
        try
        {
            await _process.WaitForExitAsync(timeout.Token);
        }
        catch (OperationCanceledException)
        {
            Assert.Fail($"the command did not end within {limit.TotalSeconds:0} s\n{Output}");
        }
        return _process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        if (_disposed)
            return;
        _disposed = true;
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
            await _process.WaitForExitAsync();
        }
        _process.Dispose();
    }

    private void Append(string? line)
    {
        lock (_output)
        {
            if (line is not null && _output.Length < 100_000)
                _output.AppendLine(line);
        }
    }
}
