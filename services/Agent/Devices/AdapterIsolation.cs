namespace VNetMesh.Agent.Devices;

/// <summary>
/// Whether a host adapter leads further. It is a dead end unless its network has an egress: a host that forwards (as one that
/// runs containers does) would otherwise route for any guest that takes the adapter for its router: out of a host-only
/// network, or past nat.
/// </summary>
/// <remarks>These settings are the device's own and go away with it; so there is nothing to record or to undo.</remarks>
internal static class AdapterIsolation
{
    // forwarding of IPv6 makes the host say in its neighbour advertisements that it is a router, without which guests drop
    // their default route (RFC 4861, section 7.2.5); force_forwarding, where the kernel has it, forwards what comes in by the
    // device while the host as a whole does not.
    private static readonly string[] Forwarding = ["ipv4/conf/{0}/forwarding", "ipv6/conf/{0}/forwarding", "ipv6/conf/{0}/force_forwarding"];

    // A guest's router advertisement must not give the host a default route (RFC 4861, section 6.3.4).
    private const string AcceptAdvertisements = "ipv6/conf/{0}/accept_ra";

    /// <param name="leadsOut">IPv4 is forwarded.</param>
    /// <param name="leadsOutIpv6">IPv6 is forwarded.</param>
    /// <exception cref="IOException">The kernel's settings cannot be written.</exception>
    public static void Apply(string interfaceName, bool leadsOut = false, bool leadsOutIpv6 = false)
    {
        Set(AcceptAdvertisements, interfaceName, false);
        foreach (string setting in Forwarding)
            Set(setting, interfaceName, setting.StartsWith("ipv6", StringComparison.Ordinal) ? leadsOutIpv6 : leadsOut);
    }

    private static void Set(string setting, string interfaceName, bool on)
    {
        string path = "/proc/sys/net/" + setting.Replace("{0}", interfaceName, StringComparison.Ordinal), value = on ? "1" : "0";
        // Without IPv6 in the kernel, or on an older one, there is no such file.
        if (!File.Exists(path) || File.ReadAllText(path).Trim() == value)
            return;
        try
        {
            File.WriteAllText(path, value);
        }
        catch (UnauthorizedAccessException exception)
        {
            throw new IOException($"{path} cannot be set to {value}: {exception.Message}", exception);
        }
    }
}
