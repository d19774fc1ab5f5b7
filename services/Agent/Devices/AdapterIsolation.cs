namespace VNetMesh.Agent.Devices;

/// <summary>
/// What keeps a host adapter a dead end. A host that forwards (as one that runs containers does) would otherwise route for any
/// guest that takes the adapter for its router: out of a host-only network, or past nat.
/// </summary>
/// <remarks>These settings are the device's own and go away with it; so there is nothing to record or to undo.</remarks>
internal static class AdapterIsolation
{
    // accept_ra: a guest's router advertisement must not give the host a default route (RFC 4861, section 6.3.4).
    private static readonly (string Setting, string Value)[] Settings = [("ipv4/conf/{0}/forwarding", "0"), ("ipv6/conf/{0}/accept_ra", "0"), ("ipv6/conf/{0}/forwarding", "0")];

    /// <exception cref="IOException">The kernel's settings cannot be written.</exception>
    public static void Apply(string interfaceName)
    {
        foreach ((string setting, string value) in Settings)
        {
            string path = "/proc/sys/net/" + setting.Replace("{0}", interfaceName, StringComparison.Ordinal);
            // Without IPv6 in the kernel there is no such file.
            if (!File.Exists(path) || File.ReadAllText(path).Trim() == value)
                continue;
            try
            {
                File.WriteAllText(path, value);
            }
            catch (UnauthorizedAccessException exception)
            {
                throw new IOException($"the host forwards, and {path} cannot be set to {value}: {exception.Message}", exception);
            }
        }
    }
}
