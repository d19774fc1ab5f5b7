using VNetMesh.Agent.Namespaces;

namespace VNetMesh.Agent.HostChanges;

/// <summary>
/// An nftables table of ours, family inet. Its name holds the instance's, so that two instances do not take each other's
/// away. To change it is to make it anew: the script replaces all of it in one transaction.
/// </summary>
/// <param name="Table">Its name.</param>
/// <param name="Script">The table, as nft(8) reads it.</param>
/// <param name="Summary">What it does, in plain words.</param>
public sealed record NftTableChange(string Owner, string NetnsIdentity, string Table, string Script, string Summary) : HostChange(Owner)
{
    public const string Program = "nft";

    public override ChangeKind Kind => ChangeKind.Firewall;

    public override string Target => $"nftables table inet {Table}";

    public override string Describe() => Summary;

    /// <exception cref="CommandException">nft is not installed, or the kernel refused.</exception>
    public override HostChange Do(HostAccess host)
    {
        // Declared first, so that there is one to delete.
        Command.RunWithInput(Program, $"table inet {Table}\ndelete table inet {Table}\n{Script}", "-f", "-");
        return this;
    }

    public override void Undo(HostAccess host)
    {
        if (HostNamespaces.OwnIdentity() == NetnsIdentity)
            Command.RunWithInput(Program, $"table inet {Table}\ndelete table inet {Table}\n", "-f", "-");
    }

    public override bool IsStillThere(HostAccess host)
    {
        if (HostNamespaces.OwnIdentity() != NetnsIdentity)
            return false;
        try
        {
            Command.Run(Program, "list", "table", "inet", Table);
            return true;
        }
        catch (CommandException)
        {
            return false;
        }
    }
}
