using System.Text.RegularExpressions;

namespace VNetMesh.Benchmarks.Running;

/// <summary>Versions of the programs that take part.</summary>
public static partial class Versions
{
    /// <returns>The first thing that looks like a version in what the program says; "?" when there is none.</returns>
    public static async Task<string> AskAsync(string[] command)
    {
        try
        {
            // Some say it on standard error.
            string said = await Shell.RunAsync(CancellationToken.None, "sh", "-c", "\"$@\" 2>&1 || true", "sh", command[0], command[1]);
            return Find(said);
        }
        catch (BenchmarkException)
        {
            return "?";
        }
    }

    public static string Find(string text) => Version().Match(text) is { Success: true } match ? match.Value : "?";

    [GeneratedRegex(@"\d+(\.\d+)+(~git\d+)?(\+r\d+)?|\b20\d\d_\d\d_\d\d\.\w+")]
    private static partial Regex Version();
}
