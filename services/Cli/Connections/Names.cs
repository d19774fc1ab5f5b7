namespace VNetMesh.Cli.Connections;

/// <summary>Short names as people type them, and full resource names as the services want them.</summary>
internal static class Names
{
    public static string Network(string name) => name.Contains('/', StringComparison.Ordinal) ? name : "networks/" + name;

    /// <summary>All networks where none is named.</summary>
    public static string NetworkOrAll(string? name) => string.IsNullOrEmpty(name) ? "networks/-" : Network(name);

    public static string Guest(string name) => name.Contains('/', StringComparison.Ordinal) ? name : "guests/" + name;

    /// <summary>"vmnet8/web1" or the full name.</summary>
    public static string Child(string name, string collection)
    {
        string[] parts = name.Split('/');
        return parts.Length == 2 ? $"networks/{parts[0]}/{collection}/{parts[1]}" : name;
    }

    /// <summary>The last part: what people call it.</summary>
    public static string Short(string name) => name[(name.LastIndexOf('/') + 1)..];

    /// <summary>The network's id in the name of something that belongs to it.</summary>
    public static string NetworkOf(string name)
    {
        string[] parts = name.Split('/');
        return parts.Length > 1 ? parts[1] : name;
    }
}
