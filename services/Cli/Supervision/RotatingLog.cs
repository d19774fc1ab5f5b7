namespace VNetMesh.Cli.Supervision;

/// <summary>A log file with a bound: at 10 MB it becomes NAME.1, and what was NAME.1 is gone.</summary>
internal sealed class RotatingLog : IDisposable
{
    private readonly string _path;
    private readonly long _limit;
    private readonly Lock _gate = new();
    private StreamWriter _writer;
    private long _length;

    public RotatingLog(string path, long limit = 10_000_000)
    {
        _path = path;
        _limit = limit;
        _writer = Open();
    }

    public void WriteLine(string line)
    {
        lock (_gate)
        {
            if (_length > _limit)
            {
                _writer.Dispose();
                File.Move(_path, _path + ".1", overwrite: true);
                _writer = Open();
            }
            _writer.WriteLine(line);
            _length += line.Length + 1;
        }
    }

    public void Dispose()
    {
        lock (_gate)
            _writer.Dispose();
    }

    /// <summary>The last lines of a log; empty when there is none.</summary>
    public static string[] Tail(string path, int lines)
    {
        try
        {
            return [.. File.ReadLines(path).TakeLast(lines)];
        }
        catch (IOException)
        {
            return [];
        }
    }

    private StreamWriter Open()
    {
        var stream = new FileStream(_path, FileMode.Append, FileAccess.Write, FileShare.ReadWrite);
        _length = stream.Length;
        return new StreamWriter(stream) { AutoFlush = true };
    }
}
