using System.Globalization;
using System.Text;
using VNetMesh.Agent.Devices;

namespace VNetMesh.Agent.Egress;

/// <summary>What the table is to do.</summary>
/// <param name="LeadingOut">Networks with an egress; each has a subnet.</param>
/// <param name="DeadEnds">Adapters of the others.</param>
/// <param name="OpenedIpv4">Interfaces of the host on which we turned forwarding on.</param>
/// <param name="OpenedIpv6">The same for IPv6.</param>
/// <param name="OpenedAllIpv6">We turned forwarding of IPv6 on for the whole host.</param>
public sealed record RulesetPlan(IReadOnlyList<NetworkSpec> LeadingOut, IReadOnlyList<string> DeadEnds, IReadOnlyList<string> OpenedIpv4, IReadOnlyList<string> OpenedIpv6, bool OpenedAllIpv6);

/// <summary>
/// Writes the table. Verdicts of other tables stand beside it: "accept" here lets nothing through that another base chain
/// drops, and our chains drop nothing but what has to do with our adapters, or with forwarding that we turned on.
/// </summary>
public static class Ruleset
{
    /// <summary>Beside the counter of what a network's guests send out; see <see cref="FirewallWatch"/>.</summary>
    public static string SentCounter(string network) => network + "-sent";

    /// <summary>Of it, what all other tables let pass.</summary>
    public static string PassedCounter(string network) => network + "-passed";

    public static string Write(string table, RulesetPlan plan)
    {
        var text = new StringBuilder();
        text.AppendLine(CultureInfo.InvariantCulture, $"table inet {table} {{");
        text.AppendLine("\tcomment \"VNetMesh\"");
        foreach (NetworkSpec network in plan.LeadingOut)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"\tcounter {SentCounter(network.Id)} {{ }}");
            text.AppendLine(CultureInfo.InvariantCulture, $"\tcounter {PassedCounter(network.Id)} {{ }}");
        }
        // Before the usual filters (priority 0), so that what they do to our guests' packets can be seen behind them.
        Chain(text, "forward", "type filter hook forward priority filter - 5; policy accept;", ForwardRules(plan));
        Chain(text, "passed", "type filter hook forward priority 300; policy accept;", plan.LeadingOut.Select(network => $"iifname \"{network.Id}\" counter name {PassedCounter(network.Id)}"));
        Chain(text, "postrouting", "type nat hook postrouting priority srcnat; policy accept;", plan.LeadingOut.Where(network => network.Egress == EgressMode.Snat).SelectMany(MasqueradeRules));
        return text.Append("}\n").ToString();
    }

    private static IEnumerable<string> ForwardRules(RulesetPlan plan)
    {
        foreach (NetworkSpec network in plan.LeadingOut)
        {
            // A guest has no address but the network's: others would let it speak in somebody's name.
            yield return $"iifname \"{network.Id}\" ip saddr != {network.Subnet} counter drop";
            yield return network.Ipv6Prefix is { } prefix ? $"iifname \"{network.Id}\" ip6 saddr != {prefix} counter drop" : $"iifname \"{network.Id}\" meta nfproto ipv6 counter drop";
        }
        if (plan.DeadEnds.Count > 0)
            yield return $"iifname {Set(plan.DeadEnds)} counter drop";
        foreach (NetworkSpec network in plan.LeadingOut)
            yield return network.Egress == EgressMode.Routed ? $"oifname \"{network.Id}\" accept" : $"oifname \"{network.Id}\" ct state established,related accept";
        // Nothing else leads to a guest, from outside or from another network.
        string[] adapters = [.. plan.LeadingOut.Select(network => network.Id).Concat(plan.DeadEnds)];
        if (adapters.Length > 0)
            yield return $"oifname {Set(adapters)} counter drop";
        foreach (NetworkSpec network in plan.LeadingOut)
            yield return $"iifname \"{network.Id}\" counter name {SentCounter(network.Id)} accept";
        // Forwarding was turned on for our guests' answers; it must not make a router of the host for anybody else.
        if (plan.OpenedIpv4.Count > 0)
            yield return $"iifname {Set(plan.OpenedIpv4)} meta nfproto ipv4 counter drop";
        if (plan.OpenedIpv6.Count > 0)
            yield return $"iifname {Set(plan.OpenedIpv6)} meta nfproto ipv6 counter drop";
        if (plan.OpenedAllIpv6)
            yield return $"iifname != {Set([.. plan.LeadingOut.Select(network => network.Id)])} meta nfproto ipv6 counter drop";
    }

    private static IEnumerable<string> MasqueradeRules(NetworkSpec network)
    {
        yield return $"ip saddr {network.Subnet} oifname != \"{network.Id}\" masquerade";
        if (network.Ipv6Prefix is { } prefix)
            yield return $"ip6 saddr {prefix} oifname != \"{network.Id}\" masquerade";
    }

    /// <summary>Nothing where there are no rules: a chain of type nat alone would make the kernel track every connection.</summary>
    private static void Chain(StringBuilder text, string name, string hook, IEnumerable<string> rules)
    {
        if (!rules.Any())
            return;
        text.AppendLine(CultureInfo.InvariantCulture, $"\tchain {name} {{");
        text.AppendLine(CultureInfo.InvariantCulture, $"\t\t{hook}");
        foreach (string rule in rules)
            text.AppendLine(CultureInfo.InvariantCulture, $"\t\t{rule}");
        text.AppendLine("\t}");
    }

    /// <summary>An interface's name may hold anything but a slash and white space; a quote would end it.</summary>
    private static string Set(IReadOnlyList<string> names) => $"{{ {string.Join(", ", names.Where(name => !name.Contains('"', StringComparison.Ordinal)).Select(name => $"\"{name}\""))} }}";
}
