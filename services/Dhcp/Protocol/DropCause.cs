namespace VNetMesh.Dhcp.Protocol;

/// <summary>Why a message, or a frame, was not answered. Named in docs/drops.md.</summary>
public enum DropCause
{
    Malformed,
    BadChecksum,
    Fragment,
    NotForUs,
    NotARequest,
    UnsupportedHardware,
    ForeignRelay,
    RateLimited,
    NewClientsLimited,
    PoolExhausted,
    AddressConflict,
    OtherServer,
    UnknownClient,
    NotLeaseHolder,
    StoreFailed,
    StoreBusy,
    LinkFull,
    LinkDown,
}

public static class DropCauses
{
    private static readonly string[] Names =
    [
        "malformed", "bad_checksum", "fragment", "not_for_us", "not_a_request", "unsupported_hardware", "foreign_relay", "rate_limited",
        "new_clients_limited", "pool_exhausted", "address_conflict", "other_server", "unknown_client", "not_lease_holder", "store_failed",
        "store_busy", "link_full", "link_down",
    ];

    public static int Count => Names.Length;

    public static string NameOf(DropCause cause) => Names[(int)cause];
}
