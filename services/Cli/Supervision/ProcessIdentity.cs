using System.Globalization;
using VNetMesh.Native;

namespace VNetMesh.Cli.Supervision;

/// <summary>A process for certain: ids are used again, but not together with the start time (proc(5), stat field 22).</summary>
internal readonly record struct ProcessIdentity(int Pid, long StartTicks)
{
    public bool IsAlive => Pid > 0 && StartTicksOf(Pid) is long ticks && ticks == StartTicks;

    /// <summary>Null when there is no such process, or it has ended and only waits to be collected.</summary>
    public static ProcessIdentity? Of(int pid) => StartTicksOf(pid) is long ticks ? new ProcessIdentity(pid, ticks) : null;

    /// <summary>Signals the process if it is still the same.</summary>
    public void Signal(int signal)
    {
        if (IsAlive)
            _ = SysSignal.kill(Pid, signal);
    }

    /// <summary>Waits until it has ended.</summary>
    public bool WaitForEnd(TimeSpan atMost)
    {
        DateTime end = DateTime.UtcNow + atMost;
        while (IsAlive)
        {
            if (DateTime.UtcNow >= end)
                return false;
            Thread.Sleep(20);
        }
        return true;
    }

    private static long? StartTicksOf(int pid)
    {
        try
        {
            string stat = File.ReadAllText($"/proc/{pid.ToString(CultureInfo.InvariantCulture)}/stat");
            // The name in parentheses may hold anything; fields are counted behind the last one.
            string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return fields[0] is "Z" or "X" ? null : long.Parse(fields[19], CultureInfo.InvariantCulture);
        }
        catch (IOException)
        {
            return null;
        }
        catch (UnauthorizedAccessException)
        {
            return null;
        }
    }
}
