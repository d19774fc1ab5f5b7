using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Logging;

namespace VNetMesh.Hosting.Logging;

/// <summary>
/// Which loggers say how much, changeable while the service runs. It is a source of configuration: the logging library reads
/// "LogLevel:CATEGORY" from it and follows its changes, so that a logger asks nobody when it decides.
/// </summary>
public sealed class LogRules : ConfigurationProvider, IConfigurationSource, IDisposable
{
    /// <summary>The name that the logging library gives to what no other rule names.</summary>
    public const string DefaultCategory = "Default";

    public const int MaximumRules = 64;

    private const string Prefix = "LogLevel:";

    private readonly Lock _gate = new();
    private readonly Dictionary<string, LogLevel> _initial;
    private readonly Dictionary<string, Rule> _set = new(StringComparer.OrdinalIgnoreCase);
    private readonly TimeProvider _time;

    public LogRules(IReadOnlyDictionary<string, LogLevel> initial, TimeProvider time)
    {
        _initial = new Dictionary<string, LogLevel>(initial, StringComparer.OrdinalIgnoreCase);
        _time = time;
        Publish();
    }

    /// <summary>The rules in force, the default first, the others by name.</summary>
    public IReadOnlyList<(string Category, LogLevel Level, DateTimeOffset? Expires)> List()
    {
        lock (_gate)
        {
            return [.. _initial.Keys.Union(_set.Keys, StringComparer.OrdinalIgnoreCase)
                .OrderBy(category => category == DefaultCategory ? "" : category, StringComparer.Ordinal)
                .Select(category => _set.TryGetValue(category, out Rule? rule) ? (category, rule.Level, rule.Expires) : (category, _initial[category], (DateTimeOffset?)null))];
        }
    }

    /// <param name="category">The beginning of logger names; <see cref="DefaultCategory"/> for the rest.</param>
    /// <param name="level">Null: back to what the service was started with.</param>
    /// <param name="duration">Null: until the service ends.</param>
    /// <returns>False: there are <see cref="MaximumRules"/> already.</returns>
    public bool TrySet(string category, LogLevel? level, TimeSpan? duration)
    {
        lock (_gate)
        {
            if (level is not null && !_set.ContainsKey(category) && _set.Count >= MaximumRules)
                return false;
            if (_set.Remove(category, out Rule? old))
                old.Timer?.Dispose();
            if (level is { } wanted)
            {
                var rule = new Rule(wanted, duration is { } life ? _time.GetUtcNow() + life : null);
                if (duration is { } time)
                    rule.Timer = _time.CreateTimer(_ => Expire(category, rule), null, time, Timeout.InfiniteTimeSpan);
                _set[category] = rule;
            }
            Publish();
        }
        OnReload();
        return true;
    }

    public IConfigurationProvider Build(IConfigurationBuilder builder) => this;

    public void Dispose()
    {
        lock (_gate)
        {
            foreach (Rule rule in _set.Values)
                rule.Timer?.Dispose();
            _set.Clear();
        }
    }

    private void Expire(string category, Rule rule)
    {
        lock (_gate)
        {
            // It may have been set anew while the timer ran.
            if (!_set.TryGetValue(category, out Rule? current) || current != rule)
                return;
            rule.Timer?.Dispose();
            _set.Remove(category);
            Publish();
        }
        OnReload();
    }

    private void Publish()
    {
        var data = new Dictionary<string, string?>(StringComparer.OrdinalIgnoreCase);
        foreach ((string category, LogLevel level) in _initial)
            data[Prefix + category] = level.ToString();
        foreach ((string category, Rule rule) in _set)
            data[Prefix + category] = rule.Level.ToString();
        Data = data;
    }

    private sealed class Rule(LogLevel level, DateTimeOffset? expires)
    {
        public LogLevel Level { get; } = level;

        public DateTimeOffset? Expires { get; } = expires;

        public ITimer? Timer { get; set; }
    }
}
