using System.Text.RegularExpressions;

namespace VNetMesh.Benchmarks.Running;

/// <summary>Versions of the programs that take part.</summary>
public static partial class Versions
{
    /// <summary>Of a program, by its package where Debian installed it, else by what it says.</summary>
    /// <returns>"?" when neither tells.</returns>
    public static async Task<string> OfAsync(string program)
    {
        try
        {
            string script = "path=$(command -v \"$1\") && package=$(dpkg-query -S \"$(readlink -f \"$path\")\" 2>/dev/null | cut -d: -f1) && [ -n \"$package\" ] && dpkg-query -W -f '${Version}' \"$package\" && exit; \"$1\" --version 2>&1 | head -n 3";
            string said = (await Shell.RunAsync(CancellationToken.None, "sh", "-c", script, "sh", program)).Trim();
            return Version().Match(said) is { Success: true } match ? match.Value : "?";
        }
        catch (BenchmarkException)
        {
            return "?";
        }
    }

    [GeneratedRegex(@"\b20\d\d_\d\d_\d\d\.\w+|\d[\w.:~+-]*\.[\w.:~+-]*")]
    private static partial Regex Version();
}
