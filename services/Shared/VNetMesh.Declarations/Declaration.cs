namespace VNetMesh.Declarations;

/// <summary>The file cannot be understood; nothing of it is used. The message says what to write instead, and the line where there is one.</summary>
public sealed class DeclarationException(string message) : Exception(message);

/// <summary>One field that the file sets.</summary>
/// <param name="Path">As in the proto file, e.g. "mtu" or "dhcpv4.range_start".</param>
/// <param name="Value">A string, an <see cref="IReadOnlyList{T}"/> of strings, a long, a bool or a <see cref="TimeSpan"/>, as the field wants it.</param>
/// <param name="Line">Where it stands.</param>
public sealed record DeclaredField(string Path, object Value, long Line);

/// <summary>Something that the file names, and the fields that it sets.</summary>
public sealed record DeclaredItem(string Id, long Line, IReadOnlyList<DeclaredField> Fields)
{
    /// <summary>The text of a field; null where the file does not set it.</summary>
    public string? Text(string path) => Fields.FirstOrDefault(field => field.Path == path)?.Value as string;

    public bool? Truth(string path) => Fields.FirstOrDefault(field => field.Path == path)?.Value as bool?;
}

/// <summary>A network, and what belongs to it.</summary>
public sealed record NetworkDeclaration(DeclaredItem Network, IReadOnlyList<DeclaredItem> Reservations, IReadOnlyList<DeclaredItem> Forwards);

/// <summary>What the file says, in its order.</summary>
public sealed record DeclarationFile(IReadOnlyList<NetworkDeclaration> Networks, IReadOnlyList<DeclaredItem> Guests);
