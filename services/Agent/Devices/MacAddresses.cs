using System.Security.Cryptography;
using System.Text;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Devices;

/// <summary>The addresses that VNetMesh gives to its devices.</summary>
public static class MacAddresses
{
    /// <summary>02:56:4e, locally administered ("VN").</summary>
    private const ulong Prefix = 0x0256_4E00_0000;

    /// <summary>The address of a port: the prefix and three octets of SHA-256 of the port's name; the same each time.</summary>
    /// <param name="port">"networks/vmnet8/ports/web1".</param>
    public static MacAddress ForPort(string port)
    {
        byte[] hash = SHA256.HashData(Encoding.UTF8.GetBytes(port));
        return new MacAddress(Prefix | ((ulong)hash[0] << 16) | ((ulong)hash[1] << 8) | hash[2]);
    }
}
