using System.Diagnostics;
using System.Text;

namespace VNetMesh.Benchmarks.Running;

/// <summary>A program that runs beside the measurement; ended, with its children, when disposed.</summary>
public sealed class BackgroundProgram : IAsyncDisposable
{
    private const int KeptCharacters = 20_000;
    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly string _name;

    private BackgroundProgram(string name, IReadOnlyList<string> command)
    {
        _name = name;
        _process = Shell.Start(command, null);
        _process.OutputDataReceived += (_, line) => Keep(line.Data);
        _process.ErrorDataReceived += (_, line) => Keep(line.Data);
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
        _process.StandardInput.Close();
    }

    public int ProcessId => _process.Id;
    public bool HasExited => _process.HasExited;

    /// <summary>What it said so far.</summary>
    public string Output { get { lock (_output) return _output.ToString(); } }

    public static BackgroundProgram Start(string name, IReadOnlyList<string> command) => new(name, command);

    /// <summary>Waits until the condition holds.</summary>
    /// <exception cref="BenchmarkException">The program ended before, or it took too long.</exception>
    public async Task UntilAsync(string what, Func<bool> condition, CancellationToken cancellation, double seconds = 10)
    {
        var watch = Stopwatch.StartNew();
        while (!condition())
        {
            if (HasExited)
                throw new BenchmarkException($"{_name} ended with {_process.ExitCode} before {what}: {Tail()}");
            if (watch.Elapsed.TotalSeconds > seconds)
                throw new BenchmarkException($"{_name}: {what} not within {seconds:0} s: {Tail()}");
            await Task.Delay(20, cancellation);
        }
    }

    /// <summary>Waits for its end.</summary>
    /// <returns>What it said.</returns>
    /// <exception cref="BenchmarkException">It failed or took too long.</exception>
    public async Task<string> FinishAsync(TimeSpan limit, CancellationToken cancellation)
    {
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        timeout.CancelAfter(limit);
        try
        {
            await _process.WaitForExitAsync(timeout.Token);
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new BenchmarkException($"{_name} did not end within {limit.TotalSeconds:0} s: {Tail()}");
        }
        return _process.ExitCode == 0 ? Output : throw new BenchmarkException($"{_name} ended with {_process.ExitCode}: {Tail()}");
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
            await _process.WaitForExitAsync();
        }
        _process.Dispose();
    }

    private string Tail() => string.Join(" / ", Output.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).TakeLast(4));

    private void Keep(string? line)
    {
        lock (_output)
        {
            if (line is not null && _output.Length < KeptCharacters)
                _output.AppendLine(line);
        }
    }
}
