using System.Diagnostics.Metrics;

namespace VNetMesh.Hosting;

/// <summary>What the runtime's own instruments do not tell of the process (OpenTelemetry semantic conventions, system/process-metrics).</summary>
internal static class ProcessInstruments
{
    public const string MeterName = "VNetMesh.Process";

    public static void Create()
    {
        // The meter lives as long as the process.
        var meter = new Meter(MeterName);
        meter.CreateObservableUpDownCounter("process.unix.file_descriptor.count", () => Directory.EnumerateFileSystemEntries("/proc/self/fd").LongCount(), "{file_descriptor}", "Descriptors that the process has open.");
        meter.CreateObservableUpDownCounter("process.thread.count", () => Directory.EnumerateFileSystemEntries("/proc/self/task").LongCount(), "{thread}", "Threads of the process.");
    }
}
