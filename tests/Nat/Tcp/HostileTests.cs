using CsCheck;
using VNetMesh.Nat.Tcp;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Tcp;

/// <summary>
/// A guest that sends whatever it likes, near the numbers that matter, in any state, to an owner that takes, stalls, sends, ends
/// and polls at random: nothing throws, nothing loops, the invariants hold, and every buffer goes back.
/// </summary>
public sealed class HostileTests
{
    private static readonly TcpState[] States =
    [
        TcpState.SynSent, TcpState.SynReceived, TcpState.Established, TcpState.FinWait1, TcpState.FinWait2, TcpState.CloseWait, TcpState.Closing,
        TcpState.LastAck, TcpState.TimeWait,
    ];

    private static readonly Gen<int> Distance = Gen.Frequency(
        (4, Gen.Int[-2, 3]), (4, Gen.Int[-3000, 3000]), (2, Gen.Int[-70_000, 70_000]), (1, Gen.Int));

    private static readonly Gen<TcpFlags> Flags = Gen.Frequency(
        (6, Gen.Const(TcpFlags.Ack)), (2, Gen.Const(TcpFlags.Ack | TcpFlags.Fin)), (1, Gen.Const(TcpFlags.Syn)), (2, Gen.Byte.Select(b => (TcpFlags)b)),
        (6, Gen.Const(TcpFlags.Ack | TcpFlags.Psh)));

    private static readonly Gen<Step> AnyStep =
        from kind in Gen.Int[0, 15]
        from flags in Flags
        from sequence in Distance
        from acknowledgment in Distance
        from length in Gen.Frequency((3, Gen.Const(0)), (3, Gen.Int[1, 3000]), (1, Gen.Int[3000, 65000]))
        from window in Gen.Frequency((1, Gen.Const(0)), (1, Gen.Int[0, 2000]), (2, Gen.Int[0, 65535]))
        from options in Gen.Int[0, 3]
        from blocks in Gen.Select(Distance, Distance).Array[0, 4]
        from stamp in Distance
        select new Step(kind, flags, sequence, acknowledgment, length, window, options, blocks, stamp);

    [Fact]
    public void NothingThatAGuestSendsBreaksTheConnection() =>
        Gen.Select(Gen.Int[0, States.Length - 1], Gen.Bool, Gen.Bool, AnyStep.Array[1, 60]).Sample(
            (state, small, relative, steps) => Run(States[state], small, relative, steps), iter: 4000, threads: 1);

    [Fact]
    public void NothingBreaksAConnectionWithTimestamps() => AnyStep.Array[1, 60].Sample(
        steps =>
        {
            Script script = Script.InEstablished(timestamp: 1000);
            foreach (Step step in steps)
                Do(script, step with { Options = step.Options | 1 }, true);
            End(script);
        }, iter: 1500, threads: 1);

    private static void Run(TcpState state, bool small, bool relative, Step[] steps)
    {
        int buffer = small ? 4096 : 128 * 1024;
        Script script = Script.In(state, new TcpOptions { ReceiveBuffer = buffer, SendBuffer = buffer, MaxRetransmits = 5 });
        foreach (Step step in steps)
            Do(script, step, relative);
        End(script);
    }

    private static void End(Script script)
    {
        script.Connection.Abort(script.Now);
        Assert.Equal(TcpState.Closed, script.State);
        Assert.Single(script.Events, e => e.StartsWith("closed", StringComparison.Ordinal));
        Assert.StartsWith("closed", script.Events[^1], StringComparison.Ordinal); // nothing is called after it
        Assert.True(script.Events.Count(e => e == "fin") <= 1);
        Assert.Equal(0, script.Pool.Rented);
        Assert.Equal(long.MaxValue, script.Connection.NextDeadline);
    }

    private static void Do(Script script, Step step, bool relative)
    {
        TcpConnection connection = script.Connection;
        switch (step.Kind)
        {
            case 0:
                script.Appetite = step.Length;
                connection.Resume(script.Now);
                break;
            case 1:
                Span<byte> room = connection.SendSpace();
                connection.Sent(Math.Min(room.Length, step.Length));
                break;
            case 2:
                script.Wait(Math.Abs((long)step.Sequence) % 5_000_000);
                break;
            case 3 when step.Length % 7 == 0:
                connection.Shutdown(script.Now);
                break;
            case 4:
                script.HasRoom = step.Length % 3 != 0;
                break;
            default:
                Receive(script, step, relative);
                break;
        }
        if (step.Window % 3 != 0)
            connection.Poll(script.Now);
        Check(script);
    }

    private static void Receive(Script script, Step step, bool relative)
    {
        // Near what the connection expects now, or near the beginning.
        int guest = 1, gateway = 1;
        if (relative)
        {
            guest += (int)Math.Min(int.MaxValue / 2, script.Received.Length + script.Connection.ReceiveBuffered);
            gateway = script.Connection.Variables.Highest.Since(script.GatewaySequence(0));
        }
        TcpHeaderOptions options = default;
        if ((step.Options & 1) != 0)
            (options.HasTimestamps, options.TimestampValue, options.TimestampEcho) = (true, (uint)(1000 + step.Stamp), (uint)step.Stamp);
        if ((step.Options & 2) != 0)
        {
            foreach ((int start, int end) in step.Blocks)
                options.Sack[options.SackCount++] = new SackBlock(script.GatewaySequence(start + 1), script.GatewaySequence(end + 1));
        }
        script.Send(step.Flags, unchecked(guest + step.Sequence), unchecked(gateway + step.Acknowledgment), step.Length, step.Window, options, poll: false);
    }

    private static void Check(Script script)
    {
        TcpConnection connection = script.Connection;
        (SequenceNumber unacknowledged, SequenceNumber next, SequenceNumber highest, int advertised) = connection.Variables;
        Assert.True(unacknowledged.IsAtOrBefore(next), "SND.UNA <= SND.NXT");
        Assert.True(next.IsAtOrBefore(highest), "SND.NXT <= the highest sent");
        if (connection.State == TcpState.Closed)
        {
            Assert.Equal(0, script.Pool.Rented);
            Assert.Equal(long.MaxValue, connection.NextDeadline);
            script.TakeAll();
            return;
        }
        Assert.InRange(connection.ReceiveBuffered, 0, script.Options.ReceiveBuffer);
        Assert.InRange(connection.ReceiveBuffered + advertised, 0, script.Options.ReceiveBuffer);
        Assert.InRange(connection.SendQueued, 0, script.Options.SendBuffer);
        Assert.InRange(connection.HeldOctets, 0, script.Options.ReceiveBuffer + script.Options.SendBuffer);
        Assert.InRange(script.Pool.Rented, 0, 2);
        foreach (Script.Segment segment in script.TakeAll())
        {
            Assert.True(segment.Options.Length <= 40);
            Assert.InRange(segment.Length, 0, 65535 - 120);
        }
    }

    private sealed record Step(int Kind, TcpFlags Flags, int Sequence, int Acknowledgment, int Length, int Window, int Options, (int, int)[] Blocks, int Stamp);
}
