using System.Globalization;
using VNetMesh.Agent.Namespaces;

namespace VNetMesh.Agent.HostChanges;

/// <summary>
/// nat pings by unprivileged sockets, which the kernel gives only to the groups in net.ipv4.ping_group_range. While there
/// is a NAT network, that range holds nat's group.
/// </summary>
public sealed partial class PingGroups(ChangeJournal journal, ILogger<PingGroups> logger)
{
    private const string Owner = "agent";
    private const string Name = "net.ipv4.ping_group_range";
    private readonly uint? _group = uint.TryParse(Environment.GetEnvironmentVariable("VNETMESH_SERVICE_GID"), NumberStyles.None, CultureInfo.InvariantCulture, out uint group) ? group : null;

    /// <summary>Why nat cannot ping; empty when it can, or need not.</summary>
    public string Condition { get; private set; } = "";

    public void Reconcile(bool isNeeded)
    {
        (long id, SysctlChange? change) = journal.Of<SysctlChange>(Owner).FirstOrDefault(entry => entry.Change.Name == Name);
        try
        {
            if (change is not null && !isNeeded)
                Release(id, change);
            else if (change is null && isNeeded && _group is { } group && Widen(SysctlChange.Read(Name), group) is { } wider)
                Open(wider);
            Condition = "";
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            if (Condition != exception.Message)
                LogFailed(exception.Message);
            Condition = exception.Message;
        }
    }

    /// <summary>The range with the group in it; null when it is in it as it is. A range that runs backwards is empty (icmp(7)).</summary>
    internal static string? Widen(string range, uint group)
    {
        string[] parts = range.Split(' ');
        uint low = uint.Parse(parts[0], CultureInfo.InvariantCulture), high = uint.Parse(parts[1], CultureInfo.InvariantCulture);
        if (low > high)
            return string.Create(CultureInfo.InvariantCulture, $"{group} {group}");
        return group >= low && group <= high ? null : string.Create(CultureInfo.InvariantCulture, $"{Math.Min(low, group)} {Math.Max(high, group)}");
    }

    private void Open(string range)
    {
        SysctlChange change = journal.Perform(new SysctlChange(Owner, HostNamespaces.OwnIdentity(), Name, SysctlChange.Read(Name), range));
        LogSet(Name, change.ValueBefore, change.Value);
    }

    private void Release(long id, SysctlChange change)
    {
        journal.Undo(id);
        LogSet(Name, change.Value, SysctlChange.Read(Name));
    }

    [LoggerMessage(LogLevel.Information, "set {Name} from '{Before}' to '{Value}'")]
    private partial void LogSet(string name, string before, string value);

    [LoggerMessage(LogLevel.Warning, "nat cannot ping: net.ipv4.ping_group_range cannot be set: {Reason}")]
    private partial void LogFailed(string reason);
}
