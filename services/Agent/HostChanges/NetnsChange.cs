using VNetMesh.Agent.Namespaces;

namespace VNetMesh.Agent.HostChanges;

/// <summary>A network namespace with a name, as `ip netns add` makes it.</summary>
/// <param name="Identity">See <see cref="NetworkNamespace.Identity"/>; empty until it is made.</param>
public sealed record NetnsChange(string Owner, string Name, string Identity = "") : HostChange(Owner)
{
    public override ChangeKind Kind => ChangeKind.Netns;

    public override string Target => $"{NamespaceReference.Directory}/{Name}";

    public override string Describe() => $"made the network namespace {Name}";

    /// <exception cref="NetnsExistsException">The name is taken.</exception>
    public override HostChange Do(HostAccess host)
    {
        if (host.Namespaces.Exists(Target))
            throw new NetnsExistsException(Name);
        host.Namespaces.Add(Name);
        using NetworkNamespace made = host.Namespaces.Open(Target);
        return this with { Identity = made.Identity };
    }

    public override void Undo(HostAccess host)
    {
        if (Identity.Length > 0 ? IsStillThere(host) : host.Namespaces.Exists(Target))
            host.Namespaces.Remove(Name);
    }

    public override bool IsStillThere(HostAccess host) => host.Namespaces.IsThere(Target, Identity);
}

/// <summary>A namespace of that name is there.</summary>
public sealed class NetnsExistsException(string name) : IOException($"a network namespace called {name} is on this host already")
{
    public string Name { get; } = name;
}
