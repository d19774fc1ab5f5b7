using System.Globalization;

namespace VNetMesh.Benchmarks.Running;

/// <summary>What processes used, read from /proc.</summary>
public static class ProcessTimes
{
    private const double TicksPerSecond = 100; // USER_HZ, the same on every architecture of Linux that .NET runs on

    /// <summary>CPU seconds of the processes, in user mode and in the kernel, of all their threads.</summary>
    public static double CpuSeconds(IEnumerable<int> processes) => processes.Sum(CpuSeconds);

    /// <summary>CPU seconds that all cores of the machine spent neither idle nor waiting.</summary>
    public static double MachineCpuSeconds()
    {
        // cpu user nice system idle iowait irq softirq steal …
        double[] fields = [.. File.ReadLines("/proc/stat").First().Split(' ', StringSplitOptions.RemoveEmptyEntries).Skip(1).Select(field => double.Parse(field, CultureInfo.InvariantCulture))];
        return (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / TicksPerSecond;
    }

    /// <summary>A size from /proc/PID/smaps_rollup ("Rss", "Pss"), in bytes, summed over the processes.</summary>
    public static double MemoryBytes(IEnumerable<int> processes, string field) => processes.Sum(process =>
    {
        string line = File.ReadLines(Path(process, "smaps_rollup")).First(line => line.StartsWith(field + ":", StringComparison.Ordinal));
        return double.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) * 1024;
    });

    /// <summary>The process and all that descend from it.</summary>
    public static IReadOnlyList<int> Tree(int root)
    {
        var found = new List<int> { root };
        for (int at = 0; at < found.Count; at++)
        {
            foreach (string task in Directory.Exists(Path(found[at], "task")) ? Directory.GetDirectories(Path(found[at], "task")) : [])
            {
                string children = System.IO.Path.Combine(task, "children");
                if (File.Exists(children))
                    found.AddRange(File.ReadAllText(children).Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(child => int.Parse(child, CultureInfo.InvariantCulture)));
            }
        }
        return found;
    }

    /// <summary>Whether anything in the process's network namespace listens on the TCP port.</summary>
    public static bool Listens(int process, int port)
    {
        // "  sl  local_address rem_address   st …": state 0A is LISTEN.
        string local = ":" + port.ToString("X4", CultureInfo.InvariantCulture);
        foreach (string file in new[] { "net/tcp", "net/tcp6" })
        {
            if (!File.Exists(Path(process, file)))
                continue;
            foreach (string line in File.ReadLines(Path(process, file)).Skip(1))
            {
                string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
                if (fields.Length > 3 && fields[3] == "0A" && fields[1].EndsWith(local, StringComparison.Ordinal))
                    return true;
            }
        }
        return false;
    }

    private static double CpuSeconds(int process)
    {
        // The name in brackets may hold spaces: fields are counted from behind it. utime and stime are fields 14 and 15 of proc(5).
        string stat = File.ReadAllText(Path(process, "stat"));
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return (double.Parse(fields[11], CultureInfo.InvariantCulture) + double.Parse(fields[12], CultureInfo.InvariantCulture)) / TicksPerSecond;
    }

    private static string Path(int process, string file) => $"/proc/{process.ToString(CultureInfo.InvariantCulture)}/{file}";
}
