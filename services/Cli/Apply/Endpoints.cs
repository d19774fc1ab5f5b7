using System.Globalization;
using VNetMesh.V1;

namespace VNetMesh.Cli.Apply;

/// <summary>"ADDRESS:PORT" in the file, and as a message.</summary>
internal static class Endpoints
{
    private const string OnlyThisHost = "127.0.0.1";

    public static string Show(Endpoint endpoint) => $"{(endpoint.Address.Length == 0 ? OnlyThisHost : endpoint.Address)}:{endpoint.Port.ToString(CultureInfo.InvariantCulture)}";

    /// <returns>Null where the text is none; an address left out is that of the host alone, where it may be.</returns>
    public static Endpoint? Read(string text, bool addressRequired)
    {
        int colon = text.LastIndexOf(':');
        if (!ushort.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out ushort port) || port == 0 || (addressRequired && colon <= 0))
            return null;
        return new Endpoint { Address = colon > 0 ? text[..colon] : OnlyThisHost, Port = port };
    }
}
