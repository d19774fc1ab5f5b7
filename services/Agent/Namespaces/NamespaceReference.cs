using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.RegularExpressions;

namespace VNetMesh.Agent.Namespaces;

/// <summary>The ways in which a user names a network namespace.</summary>
public static partial class NamespaceReference
{
    /// <summary>Where iproute2 keeps the namespaces that have names.</summary>
    public const string Directory = "/run/netns";

    /// <summary>
    /// Turns "4711" (a process), "x" (a name under /run/netns) or an absolute path into a path. It does not look
    /// whether something is there.
    /// </summary>
    public static bool TryResolve(string? text, [NotNullWhen(true)] out string? path)
    {
        path = null;
        if (string.IsNullOrEmpty(text) || text.Length > 1024 || text.Any(char.IsControl))
            return false;
        if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int pid))
            path = pid > 0 ? string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/ns/net") : null;
        else if (text[0] == '/')
            path = System.IO.Path.GetFullPath(text);
        else if (IsName(text))
            path = $"{Directory}/{text}";
        return path is not null;
    }

    /// <summary>What `ip netns add` takes and nothing that could lead elsewhere.</summary>
    public static bool IsName(string text) => NamePattern().IsMatch(text);

    /// <summary>The name of a namespace under /run/netns; null for any other path.</summary>
    public static string? NameOf(string path)
    {
        foreach (string directory in (ReadOnlySpan<string>)[Directory + "/", "/var/run/netns/"])
        {
            if (path.StartsWith(directory, StringComparison.Ordinal) && IsName(path[directory.Length..]))
                return path[directory.Length..];
        }
        return null;
    }

    [GeneratedRegex(@"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\z")]
    private static partial Regex NamePattern();
}
