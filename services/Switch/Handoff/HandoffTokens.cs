using System.Buffers.Binary;
using System.Security.Cryptography;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Handoff;

/// <summary>
/// Tokens that connect something to a port: 16 random octets, good once, for 30 s. A port has one at most: asking again
/// makes the one before worthless, so there are never more than ports.
/// </summary>
public sealed class HandoffTokens(TimeProvider time)
{
    public const int Length = 16;
    public static readonly TimeSpan Life = TimeSpan.FromSeconds(30);

    private readonly Lock _lock = new();
    private readonly Dictionary<UInt128, (PortEntry Port, long Issued)> _byToken = [];
    private readonly Dictionary<PortEntry, UInt128> _byPort = [];

    public byte[] Issue(PortEntry port)
    {
        byte[] octets = RandomNumberGenerator.GetBytes(Length);
        UInt128 token = BinaryPrimitives.ReadUInt128BigEndian(octets);
        lock (_lock)
        {
            Forget(port);
            ForgetOld();
            _byToken.Add(token, (port, time.GetTimestamp()));
            _byPort.Add(port, token);
        }
        return octets;
    }

    /// <summary>The port of a token, which is worthless from now on; null when it is unknown, used or too old.</summary>
    public PortEntry? Redeem(UInt128 token)
    {
        lock (_lock)
        {
            if (!_byToken.TryGetValue(token, out (PortEntry Port, long Issued) found))
                return null;
            Forget(found.Port);
            return time.GetElapsedTime(found.Issued) <= Life ? found.Port : null;
        }
    }

    /// <summary>Tokens held, used by tests.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
                return _byToken.Count;
        }
    }

    private void Forget(PortEntry port)
    {
        if (_byPort.Remove(port, out UInt128 token))
            _byToken.Remove(token);
    }

    private void ForgetOld()
    {
        foreach (PortEntry port in _byToken.Values.Where(held => time.GetElapsedTime(held.Issued) > Life).Select(held => held.Port).ToList())
            Forget(port);
    }
}
