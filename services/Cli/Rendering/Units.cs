using System.Globalization;
using Google.Protobuf.WellKnownTypes;

namespace VNetMesh.Cli.Rendering;

/// <summary>Numbers as people read them.</summary>
internal static class Units
{
    /// <summary>"512 B", "1.5 kB", "27 MB" (powers of 1000).</summary>
    public static string Bytes(ulong bytes)
    {
        string[] units = ["B", "kB", "MB", "GB", "TB", "PB"];
        double value = bytes;
        int unit = 0;
        while (value >= 999.5 && unit < units.Length - 1)
        {
            value /= 1000;
            unit++;
        }
        return value.ToString(unit == 0 || value >= 9.95 ? "0" : "0.0", CultureInfo.InvariantCulture) + " " + units[unit];
    }

    public static string Count(ulong count) => count.ToString(CultureInfo.InvariantCulture);

    /// <summary>"350 ms", "12 s", "4 min 10 s", "2 h 5 min", "3 d 4 h".</summary>
    public static string Time(TimeSpan time) => time switch
    {
        { TotalMilliseconds: < 0 } => "0 s",
        { TotalSeconds: < 1 } => string.Create(CultureInfo.InvariantCulture, $"{time.TotalMilliseconds:0} ms"),
        { TotalMinutes: < 1 } => string.Create(CultureInfo.InvariantCulture, $"{Math.Floor(time.TotalSeconds):0} s"),
        { TotalHours: < 1 } => $"{time.Minutes} min {time.Seconds} s",
        { TotalDays: < 1 } => $"{time.Hours} h {time.Minutes} min",
        _ => $"{time.Days} d {time.Hours} h",
    };

    public static string Time(Duration? duration) => duration is null ? "" : Time(duration.ToTimeSpan());

    public static string Until(Timestamp? time) => time is null ? "" : time.ToDateTime() <= DateTime.UtcNow ? "expired" : "in " + Time(time.ToDateTime() - DateTime.UtcNow);

    public static string Since(Timestamp? time) => time is null ? "" : Time(DateTime.UtcNow - time.ToDateTime());

    /// <summary>An enum value without its prefix, in lower case: NETWORK_KIND_HOST_ONLY → "host-only".</summary>
    public static string Name<T>(T value)
        where T : struct, System.Enum
    {
        string text = value.ToString();
        var result = new System.Text.StringBuilder();
        foreach (char c in text)
        {
            if (char.IsUpper(c) && result.Length > 0)
                result.Append('-');
            result.Append(char.ToLowerInvariant(c));
        }
        return result.ToString();
    }

    public static string Drops(IDictionary<string, ulong> drops) =>
        string.Join(", ", drops.Where(drop => drop.Value > 0).OrderByDescending(drop => drop.Value).Select(drop => $"{drop.Key} {Count(drop.Value)}"));
}
