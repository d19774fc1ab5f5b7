namespace VNetMesh.Switch.Forwarding;

/// <summary>What of a network matters to its frames.</summary>
/// <param name="Mtu">Octets of the largest IP packet.</param>
/// <param name="MacAgeing">Microseconds.</param>
/// <param name="MaxMacs">Addresses learned on the network, 1 to 65536.</param>
/// <param name="MaxMacsPerPort">Addresses learned on a guest's or a service's port.</param>
/// <param name="IsolatePorts">Guests do not reach each other.</param>
public sealed record ForwardingSettings(int Mtu, long MacAgeing, int MaxMacs, int MaxMacsPerPort, bool IsolatePorts)
{
    /// <summary>Whether addresses that two stations claim are looked for.</summary>
    public bool WatchesAddresses { get; init; }
}
