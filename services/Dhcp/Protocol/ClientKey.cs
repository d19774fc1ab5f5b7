namespace VNetMesh.Dhcp.Protocol;

/// <summary>
/// Who a client is (RFC 2131, 4.2): its client identifier, and where it sends none, its hardware type and address. Printable:
/// "id:ff01…" or "hw:01020000000001". The default is nobody.
/// </summary>
public readonly record struct ClientKey(string? Value)
{
    public bool IsNobody => string.IsNullOrEmpty(Value);

    public static ClientKey FromIdentifier(ReadOnlySpan<byte> identifier) => new("id:" + Convert.ToHexStringLower(identifier));

    public static ClientKey FromHardware(byte type, ReadOnlySpan<byte> address) => new($"hw:{type:x2}{Convert.ToHexStringLower(address)}");

    public override string ToString() => Value ?? "";
}
