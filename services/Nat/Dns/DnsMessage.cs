using System.Buffers.Binary;
using System.Text;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Dns;

/// <summary>
/// As much of a DNS message (RFC 1035, 4.1) as a proxy must understand.
/// <code>
///  0    2       4         6         8         10        12
/// | id | flags | qdcount | ancount | nscount | arcount | question …
/// </code>
/// </summary>
internal static class DnsMessage
{
    public const int HeaderLength = 12;
    public const byte FormatError = 1;
    public const byte ServerFailure = 2;
    public const byte NotImplemented = 4;
    public const byte Refused = 5;

    private const int MaxLabel = 63;
    private const int MaxName = 255;
    private const int MaxAnswers = 64;
    private const int TypeA = 1;
    private const int ClassIn = 1;

    public static ushort Id(ReadOnlySpan<byte> message) => BinaryPrimitives.ReadUInt16BigEndian(message);

    public static void SetId(Span<byte> message, ushort id) => BinaryPrimitives.WriteUInt16BigEndian(message, id);

    public static byte ResponseCode(ReadOnlySpan<byte> message) => (byte)(message[3] & 0x0F);

    /// <summary>True for a query with exactly one question that is well formed, at offset 12.</summary>
    public static bool TryReadQuery(ReadOnlySpan<byte> message, out ReadOnlySpan<byte> question) =>
        TryReadQuestion(message, out question) && (message[2] & 0x80) == 0;

    /// <summary>Whether a message answers that question under that id: names compare without regard to ASCII case (RFC 4343).</summary>
    public static bool IsAnswerTo(ReadOnlySpan<byte> message, ushort id, ReadOnlySpan<byte> question) =>
        TryReadQuestion(message, out ReadOnlySpan<byte> asked) && (message[2] & 0x80) != 0 && Id(message) == id && EqualsIgnoringCase(asked, question);

    public static bool IsStandardQuery(ReadOnlySpan<byte> query) => (query[2] & 0x78) == 0;

    /// <summary>Writes the answer to a query that bears nothing but a code.</summary>
    /// <returns>Octets written.</returns>
    public static int WriteError(Span<byte> answer, ReadOnlySpan<byte> query, ReadOnlySpan<byte> question, byte code)
    {
        query[..HeaderLength].CopyTo(answer);
        answer[2] = (byte)(0x80 | (query[2] & 0x79)); // QR; opcode and RD as asked
        answer[3] = (byte)(0x80 | code); // RA
        BinaryPrimitives.WriteUInt16BigEndian(answer[4..], 1);
        answer[6..HeaderLength].Clear();
        question.CopyTo(answer[HeaderLength..]);
        return HeaderLength + question.Length;
    }

    /// <summary>The name asked for, of a message whose question is well formed; what is not a letter, digit, '-', '_' or '.' is shown as '?'.</summary>
    public static string QuestionName(ReadOnlySpan<byte> message)
    {
        var name = new StringBuilder();
        for (int at = HeaderLength; at < message.Length && message[at] is > 0 and <= MaxLabel && at + message[at] < message.Length; at += message[at] + 1)
        {
            if (name.Length > 0)
                name.Append('.');
            foreach (byte b in message.Slice(at + 1, message[at]))
                name.Append(char.IsAsciiLetterOrDigit((char)b) || b is (byte)'-' or (byte)'_' ? char.ToLowerInvariant((char)b) : '?');
        }
        return name.Length == 0 ? "." : name.ToString();
    }

    /// <summary>IPv4 addresses in the answer section (type A, class IN). Stops at the first record that is not well formed.</summary>
    public static List<Ipv4Address> Addresses(ReadOnlySpan<byte> message)
    {
        var found = new List<Ipv4Address>();
        if (!TryReadQuestion(message, out ReadOnlySpan<byte> question))
            return found;
        int records = Math.Min((int)BinaryPrimitives.ReadUInt16BigEndian(message[6..]), MaxAnswers);
        int at = HeaderLength + question.Length;
        while (records-- > 0 && TrySkipName(message, ref at) && at + 10 <= message.Length)
        {
            ReadOnlySpan<byte> record = message[at..];
            int length = BinaryPrimitives.ReadUInt16BigEndian(record[8..]);
            if (at + 10 + length > message.Length)
                break;
            if (length == 4 && BinaryPrimitives.ReadUInt16BigEndian(record) == TypeA && BinaryPrimitives.ReadUInt16BigEndian(record[2..]) == ClassIn)
                found.Add(new Ipv4Address(BinaryPrimitives.ReadUInt32BigEndian(record[10..])));
            at += 10 + length;
        }
        return found;
    }

    // A name ends with the root label, or with a pointer to the rest of it (RFC 1035, 4.1.4), which need not be followed here.
    private static bool TrySkipName(ReadOnlySpan<byte> message, ref int at)
    {
        while (at < message.Length)
        {
            byte length = message[at];
            if ((length & 0xC0) == 0xC0)
            {
                at += 2;
                return at <= message.Length;
            }
            if (length > MaxLabel)
                return false;
            at += length + 1;
            if (length == 0)
                return true;
        }
        return false;
    }

    private static bool TryReadQuestion(ReadOnlySpan<byte> message, out ReadOnlySpan<byte> question)
    {
        question = default;
        if (message.Length < HeaderLength || BinaryPrimitives.ReadUInt16BigEndian(message[4..]) != 1)
            return false;
        int at = HeaderLength;
        while (at < message.Length && message[at] != 0)
        {
            // Compression cannot occur in the first name; labels are 63 octets at most.
            if (message[at] > MaxLabel || at + message[at] + 1 - HeaderLength >= MaxName)
                return false;
            at += message[at] + 1;
        }
        int end = at + 5; // the root label, type and class
        if (end > message.Length)
            return false;
        question = message[HeaderLength..end];
        return true;
    }

    private static bool EqualsIgnoringCase(ReadOnlySpan<byte> one, ReadOnlySpan<byte> other)
    {
        if (one.Length != other.Length)
            return false;
        // Type and class are compared as they are; letters in the name may differ in bit 0x20.
        int name = one.Length - 4;
        if (!one[name..].SequenceEqual(other[name..]))
            return false;
        for (int i = 0; i < name; i++)
        {
            if (one[i] != other[i] && ((one[i] ^ other[i]) != 0x20 || !char.IsAsciiLetter((char)one[i])))
                return false;
        }
        return true;
    }
}
