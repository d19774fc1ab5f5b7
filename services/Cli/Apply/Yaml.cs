using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace VNetMesh.Cli.Apply;

/// <summary>Writes the little of YAML that vnetmesh.yaml needs: mappings, lists on one line, and plain or quoted scalars.</summary>
internal sealed partial class Yaml
{
    private readonly StringBuilder _text = new();

    public void Comment(string text) => _text.AppendLine(CultureInfo.InvariantCulture, $"# {text}");

    public void Begin(int depth, string key) => _text.AppendLine(CultureInfo.InvariantCulture, $"{Indent(depth)}{key}:");

    /// <summary>Nothing where the value is empty, unless that is to be said.</summary>
    public void Field(int depth, string key, string value, bool evenEmpty = false)
    {
        if (value.Length > 0 || evenEmpty)
            _text.AppendLine(CultureInfo.InvariantCulture, $"{Indent(depth)}{key}: {Scalar(value)}");
    }

    public void List(int depth, string key, IReadOnlyCollection<string> values) =>
        _text.AppendLine(CultureInfo.InvariantCulture, $"{Indent(depth)}{key}: [{string.Join(", ", values.Select(Scalar))}]");

    /// <summary>"90s", "30m", "2h" or "1d": the largest unit that says it exactly.</summary>
    public static string Time(TimeSpan time)
    {
        long seconds = (long)time.TotalSeconds;
        (long unit, string name) = seconds switch
        {
            _ when seconds % 86400 == 0 => (86400, "d"),
            _ when seconds % 3600 == 0 => (3600, "h"),
            _ when seconds % 60 == 0 => (60, "m"),
            _ => (1, "s"),
        };
        return string.Create(CultureInfo.InvariantCulture, $"{seconds / unit}{name}");
    }

    public override string ToString() => _text.ToString();

    private static string Indent(int depth) => new(' ', depth * 2);

    private static string Scalar(string value) => Plain().IsMatch(value) ? value : "\"" + value.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal) + "\"";

    // A colon makes some readers see a number of base 60, or a key.
    [GeneratedRegex(@"\A[A-Za-z0-9/][A-Za-z0-9._/-]*\z")]
    private static partial Regex Plain();
}
