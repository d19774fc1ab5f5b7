using System.Text.RegularExpressions;
using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using Microsoft.Extensions.Logging;
using VNetMesh.V1;

namespace VNetMesh.Hosting.Logging;

/// <summary>diagnostics.proto, the same in every service.</summary>
internal sealed partial class DiagnosticsRpc(LogRules rules) : DiagnosticsService.DiagnosticsServiceBase
{
    private static readonly TimeSpan Longest = TimeSpan.FromHours(24);

    public override Task<ListLogRulesResponse> ListLogRules(ListLogRulesRequest request, ServerCallContext context) =>
        Task.FromResult(new ListLogRulesResponse { Rules = { All() } });

    public override Task<SetLogRuleResponse> SetLogRule(SetLogRuleRequest request, ServerCallContext context)
    {
        LogRule rule = request.Rule ?? new LogRule();
        if (!System.Enum.IsDefined(rule.Severity))
            throw RpcErrors.InvalidArgument("LOG_SEVERITY_INVALID", "the severity must be one of trace, debug, information, warning, error, critical, none", ("severity", rule.Severity.ToString()));
        if (!CategoryPattern().IsMatch(rule.Category))
            throw RpcErrors.InvalidArgument("LOG_CATEGORY_INVALID", $"the category '{rule.Category}' must be at most 128 of letters, digits, '.' and '_'", ("category", rule.Category));
        TimeSpan? duration = request.Duration?.ToTimeSpan();
        if (duration < TimeSpan.FromSeconds(1) || duration > Longest)
            throw RpcErrors.InvalidArgument("LOG_DURATION_OUT_OF_RANGE", "a log rule holds for 1 s to 24 h, or without a duration until the service ends");
        if (!rules.TrySet(rule.Category.Length == 0 ? LogRules.DefaultCategory : rule.Category, ToLevel(rule.Severity), duration))
            throw RpcErrors.ResourceExhausted("TOO_MANY_LOG_RULES", $"there are {LogRules.MaximumRules} log rules already; take one back first");
        return Task.FromResult(new SetLogRuleResponse { Rules = { All() } });
    }

    private IEnumerable<LogRule> All() => rules.List().Select(rule => new LogRule
    {
        Category = rule.Category == LogRules.DefaultCategory ? "" : rule.Category,
        Severity = (LogSeverity)(rule.Level + 1),
        ExpireTime = rule.Expires?.ToTimestamp(),
    });

    // The enum of the API is the library's, moved by the unspecified zero.
    private static LogLevel? ToLevel(LogSeverity severity) => severity == LogSeverity.Unspecified ? null : (LogLevel)(severity - 1);

    [GeneratedRegex(@"^[A-Za-z0-9._]{0,128}$")]
    private static partial Regex CategoryPattern();
}
