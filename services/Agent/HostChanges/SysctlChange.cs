using VNetMesh.Agent.Namespaces;

namespace VNetMesh.Agent.HostChanges;

/// <summary>A kernel setting of the agent's network namespace.</summary>
/// <param name="Name">"net.ipv4.ping_group_range".</param>
/// <param name="NetnsIdentity">The namespace whose setting it is.</param>
public sealed record SysctlChange(string Owner, string NetnsIdentity, string Name, string ValueBefore, string Value) : HostChange(Owner)
{
    public override ChangeKind Kind => ChangeKind.Sysctl;

    public override string Target => Name;

    public override string Before => ValueBefore;

    public override string Describe() => $"set {Name} to '{Value}'";

    public override HostChange Do(HostAccess host)
    {
        File.WriteAllText(PathOf(Name), Value);
        return this;
    }

    public override void Undo(HostAccess host)
    {
        if (IsStillThere(host))
            File.WriteAllText(PathOf(Name), ValueBefore);
    }

    /// <summary>Only while it is what we set: a value that somebody set after us is theirs. An interface's setting goes with it.</summary>
    public override bool IsStillThere(HostAccess host) => HostNamespaces.OwnIdentity() == NetnsIdentity && Exists(Name) && Read(Name) == Value;

    /// <summary>The value, with single spaces between its parts.</summary>
    public static string Read(string name) => string.Join(' ', File.ReadAllText(PathOf(name)).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));

    public static bool Exists(string name) => File.Exists(PathOf(name));

    public static void Write(string name, string value) => File.WriteAllText(PathOf(name), value);

    /// <summary>The name of an interface's setting; a dot in the interface's name is written as a slash, as sysctl(8) does.</summary>
    /// <param name="family">"ipv4" or "ipv6".</param>
    public static string OfInterface(string family, string @interface, string setting) => $"net.{family}.conf.{@interface.Replace('.', '/')}.{setting}";

    private static string PathOf(string name) => "/proc/sys/" + string.Create(name.Length, name, static (path, from) =>
    {
        for (int i = 0; i < path.Length; i++)
            path[i] = from[i] switch { '.' => '/', '/' => '.', char other => other };
    });
}
