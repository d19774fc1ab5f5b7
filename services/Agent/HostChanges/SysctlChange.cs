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

    /// <summary>Only while it is what we set: a value that somebody set after us is theirs.</summary>
    public override bool IsStillThere(HostAccess host) => HostNamespaces.OwnIdentity() == NetnsIdentity && Read(Name) == Value;

    /// <summary>The value, with single spaces between its parts.</summary>
    public static string Read(string name) => string.Join(' ', File.ReadAllText(PathOf(name)).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));

    private static string PathOf(string name) => "/proc/sys/" + name.Replace('.', '/');
}
