using System.Text.Json;
using VNetMesh.Agent.Devices;

namespace VNetMesh.Agent.Egress;

/// <summary>
/// Sees whether the host's own firewall lets our guests' packets pass. What counts is what happens: packets that our table
/// let go and that did not come out behind the other tables were dropped there. Until there were any, a base chain that
/// drops by default and says nothing of the adapter is a suspicion worth telling.
/// </summary>
public sealed class FirewallWatch
{
    private readonly Dictionary<string, Seen> _seen = new(StringComparer.Ordinal);

    private enum Verdict
    {
        Unknown,
        Passes,
        Dropped,
    }

    /// <summary>Takes in what `nft -j list counters table inet …` says.</summary>
    public void Observe(string json, IEnumerable<NetworkSpec> networks)
    {
        Dictionary<string, long> counters = Objects(json, "counter").ToDictionary(counter => counter.GetProperty("name").GetString()!, counter => counter.GetProperty("packets").GetInt64());
        foreach (NetworkSpec network in networks)
        {
            Seen before = _seen.GetValueOrDefault(network.Id) ?? new Seen(0, 0, Verdict.Unknown);
            long sent = counters.GetValueOrDefault(Ruleset.SentCounter(network.Id)), passed = counters.GetValueOrDefault(Ruleset.PassedCounter(network.Id));
            // The table was made anew: its counters begin at zero.
            if (sent < before.Sent || passed < before.Passed)
                before = before with { Sent = 0, Passed = 0 };
            Verdict verdict = passed > before.Passed ? Verdict.Passes : sent > before.Sent ? Verdict.Dropped : before.Verdict;
            _seen[network.Id] = new Seen(sent, passed, verdict);
        }
    }

    /// <summary>Whether the ruleset is worth a look for a network: nothing is known to pass.</summary>
    public bool IsInDoubt(string network) => _seen.GetValueOrDefault(network)?.Verdict is not Verdict.Passes;

    /// <param name="ruleset">What `nft -j list ruleset` says; empty where it says nothing.</param>
    /// <param name="ownTable">Ours, which does not count.</param>
    /// <returns>What to tell; null where all is well.</returns>
    public string? Judge(string network, string ruleset, string ownTable)
    {
        Verdict verdict = _seen.GetValueOrDefault(network)?.Verdict ?? Verdict.Unknown;
        if (verdict == Verdict.Passes)
            return null;
        string? remedy = Suspect(network, ruleset, ownTable);
        return (verdict, remedy) switch
        {
            (Verdict.Dropped, null) => $"this host's firewall drops what {network} sends out: let it forward from and to {network}",
            (Verdict.Dropped, _) => $"this host's firewall drops what {network} sends out: {remedy}",
            (_, null) => null,
            _ => $"this host's firewall drops what it forwards unless told otherwise: {remedy}",
        };
    }

    public void Forget(Func<string, bool> which)
    {
        foreach (string network in _seen.Keys.Where(which).ToList())
            _seen.Remove(network);
    }

    /// <summary>A forward chain that drops by default and accepts nothing from the adapter; null where there is none.</summary>
    internal static string? Suspect(string adapter, string ruleset, string ownTable)
    {
        if (ruleset.Length == 0)
            return null;
        var chains = Objects(ruleset, "chain").Where(chain => Text(chain, "table") != ownTable).ToList();
        var rules = Objects(ruleset, "rule").ToLookup(rule => (Text(rule, "family"), Text(rule, "table"), Text(rule, "chain")));
        foreach (JsonElement chain in chains.Where(chain => Text(chain, "hook") == "forward" && Text(chain, "policy") == "drop" && Text(chain, "family") is "ip" or "inet"))
        {
            (string family, string table, string name) = (Text(chain, "family"), Text(chain, "table"), Text(chain, "name"));
            if (!Accepts(adapter, (family, table, name), rules, depth: 0))
                return Remedy(adapter, family, table, name, chains);
        }
        return null;
    }

    private static string Remedy(string adapter, string family, string table, string chain, List<JsonElement> chains)
    {
        bool hasDockersChain = chains.Any(other => Text(other, "family") == "ip" && Text(other, "table") == "filter" && Text(other, "name") == "DOCKER-USER");
        if (family == "ip" && table == "filter" && hasDockersChain)
            return $"add 'iptables -I DOCKER-USER -i {adapter} -j ACCEPT' and 'iptables -I DOCKER-USER -o {adapter} -j ACCEPT'";
        if (family == "ip" && table == "filter" && chain == "FORWARD")
            return $"add 'iptables -I FORWARD -i {adapter} -j ACCEPT' and 'iptables -I FORWARD -o {adapter} -j ACCEPT'";
        return table == "firewalld"
            ? $"add 'firewall-cmd --permanent --zone=trusted --add-interface={adapter}' and 'firewall-cmd --reload'"
            : $"add 'nft insert rule {family} {table} {chain} iifname {adapter} accept' and 'nft insert rule {family} {table} {chain} oifname {adapter} accept'";
    }

    /// <summary>Whether a rule of the chain, or of one that it jumps to, accepts what comes from the adapter.</summary>
    private static bool Accepts(string adapter, (string Family, string Table, string Chain) chain, ILookup<(string, string, string), JsonElement> rules, int depth)
    {
        const int MaxDepth = 16; // the kernel's own limit of jumps
        foreach (JsonElement rule in rules[chain])
        {
            bool names = false, accepts = false;
            string? target = null;
            foreach (JsonElement expression in rule.TryGetProperty("expr", out JsonElement list) ? list.EnumerateArray() : [])
            {
                names |= expression.TryGetProperty("match", out JsonElement match) && MatchesInput(match, adapter);
                accepts |= expression.TryGetProperty("accept", out _);
                if (expression.TryGetProperty("jump", out JsonElement jump) || expression.TryGetProperty("goto", out jump))
                    target = Text(jump, "target");
            }
            if ((names && accepts) || (target is not null && depth < MaxDepth && Accepts(adapter, (chain.Family, chain.Table, target), rules, depth + 1)))
                return true;
        }
        return false;
    }

    private static bool MatchesInput(JsonElement match, string adapter) =>
        match.TryGetProperty("left", out JsonElement left) && left.ValueKind == JsonValueKind.Object && left.TryGetProperty("meta", out JsonElement meta) && Text(meta, "key") is "iifname" or "iif"
        && match.TryGetProperty("right", out JsonElement right) && right.GetRawText().Contains($"\"{adapter}\"", StringComparison.Ordinal);

    private static string Text(JsonElement element, string name) => element.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString()! : "";

    private static List<JsonElement> Objects(string json, string kind)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        return [.. document.RootElement.GetProperty("nftables").EnumerateArray().Where(item => item.TryGetProperty(kind, out _)).Select(item => item.GetProperty(kind).Clone())];
    }

    private sealed record Seen(long Sent, long Passed, Verdict Verdict);
}
