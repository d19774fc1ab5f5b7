using VNetMesh.Links;
using VNetMesh.Packets;

namespace VNetMesh.Switch.Registry;

/// <summary>What a port is there for: decides who is isolated from whom and which bounds hold.</summary>
public enum PortRole
{
    Unspecified = 0,
    Guest = 1,
    Host = 2,
    Service = 3,
    Uplink = 4,
}

/// <summary>How the port's frames come.</summary>
public enum PortTransport
{
    Unspecified = 0,
    Tap = 1,
    Ring = 2,
    Stream = 3,

    /// <summary>A Unix socket of a VM, stream or datagram, handed over.</summary>
    VmSocket = 4,
}

public enum PortState
{
    Unspecified = 0,

    /// <summary>Registered; nothing was connected yet.</summary>
    Waiting = 1,
    Up = 2,

    /// <summary>What was connected is gone.</summary>
    Down = 3,
}

/// <summary>A port as the control side has it.</summary>
public sealed record PortInfo
{
    /// <summary>"networks/{id}"</summary>
    public required string Network { get; init; }

    public required string Id { get; init; }

    public required PortRole Role { get; init; }

    public required PortTransport Transport { get; init; }

    public MacAddress? Mac { get; init; }

    /// <summary>What the far side accepts; null: what it says when it connects.</summary>
    public LinkOffloads? Offloads { get; init; }

    public string Owner { get; init; } = "";

    public PortState State { get; init; }

    public DateTimeOffset CreateTime { get; init; }

    /// <summary>"networks/{network}/ports/{id}"</summary>
    public string Name => NameOf(Network, Id);

    public static string NameOf(string network, string id) => $"{network}/ports/{id}";
}
