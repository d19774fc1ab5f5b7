namespace VNetMesh.Packets.Offload;

/// <summary>Why a frame's offloads cannot be done in software.</summary>
public enum OffloadFault
{
    None,

    /// <summary>Shorter than its headers.</summary>
    FrameTooShort,

    /// <summary>Longer than an IP packet of 65,535 octets and an Ethernet header with two VLAN tags.</summary>
    FrameTooLong,

    /// <summary>A kind of segment that is not known, or a large segment whose checksum is not to be completed.</summary>
    KindUnknown,

    /// <summary>The segment size is zero, so small that the frame would become too many segments, or more than a packet can hold.</summary>
    SegmentSizeOutOfRange,

    /// <summary>The checksum's place lies outside of the frame, or is not where the headers have it.</summary>
    ChecksumPlaceInvalid,

    /// <summary>The frame is not of the protocol that the kind of segment says.</summary>
    ProtocolMismatch,

    /// <summary>A header's length field is too small, or goes beyond the frame.</summary>
    HeaderLengthInvalid,

    /// <summary>The IP header's length is not that of the frame.</summary>
    PacketLengthMismatch,

    /// <summary>A fragment: it cannot be cut into segments.</summary>
    Fragment,
}

public static class OffloadFaults
{
    /// <summary>The fault's name as a cause of drops, e.g. "offload_fragment".</summary>
    public static string ToCause(this OffloadFault fault) => fault switch
    {
        OffloadFault.None => "",
        OffloadFault.FrameTooShort => "offload_frame_too_short",
        OffloadFault.FrameTooLong => "offload_frame_too_long",
        OffloadFault.KindUnknown => "offload_kind_unknown",
        OffloadFault.SegmentSizeOutOfRange => "offload_segment_size_out_of_range",
        OffloadFault.ChecksumPlaceInvalid => "offload_checksum_place_invalid",
        OffloadFault.ProtocolMismatch => "offload_protocol_mismatch",
        OffloadFault.HeaderLengthInvalid => "offload_header_length_invalid",
        OffloadFault.PacketLengthMismatch => "offload_packet_length_mismatch",
        OffloadFault.Fragment => "offload_fragment",
        _ => "offload_other",
    };
}
