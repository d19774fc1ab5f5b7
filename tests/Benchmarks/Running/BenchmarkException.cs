namespace VNetMesh.Benchmarks.Running;

/// <summary>A row that cannot be measured; the message says why, in one line.</summary>
public sealed class BenchmarkException : Exception
{
    public BenchmarkException() { }

    public BenchmarkException(string message) : base(message) { }

    public BenchmarkException(string message, Exception inner) : base(message, inner) { }
}
