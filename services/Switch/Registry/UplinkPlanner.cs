namespace VNetMesh.Switch.Registry;

/// <summary>Checks what is wanted of a network's uplink.</summary>
internal static class UplinkPlanner
{
    /// <summary>IFNAMSIZ less the closing zero.</summary>
    private const int MaxName = 15;

    /// <exception cref="RegistryException">UPLINK_INVALID.</exception>
    public static string ReadName(NetworkDraft draft)
    {
        string name = draft.Uplink ?? "";
        if (name.Length == 0)
            return "";
        if (draft.Kind != NetworkKind.Bridged)
            throw Invalid("uplink", "only a bridged network has an uplink: another leads out by nat, or by its egress");
        // dev_valid_name() of the kernel, and no control characters.
        if (System.Text.Encoding.UTF8.GetByteCount(name) > MaxName || name is "." or ".." || name.Any(letter => char.IsWhiteSpace(letter) || char.IsControl(letter) || letter is '/' or ':'))
            throw Invalid("uplink", $"'{name}' is not the name of a network interface, nor '{NetworkPlanner.AutoUplink}'");
        return name;
    }

    /// <exception cref="RegistryException">UPLINK_INVALID.</exception>
    public static UplinkDriver ReadDriver(NetworkDraft draft)
    {
        if (draft.UplinkDriver is < UplinkDriver.Unspecified or > UplinkDriver.Pcap)
            throw Invalid("uplink_driver", "the uplink's driver must be tc or pcap");
        if (draft.Kind == NetworkKind.Bridged)
            return draft.UplinkDriver == UplinkDriver.Unspecified ? UplinkDriver.Tc : draft.UplinkDriver;
        return draft.UplinkDriver == UplinkDriver.Unspecified ? UplinkDriver.Unspecified : throw Invalid("uplink_driver", "only a bridged network has an uplink, and a driver for it");
    }

    private static RegistryException Invalid(string field, string message) => Refuse.Invalid("UPLINK_INVALID", message, ("field", field));
}
