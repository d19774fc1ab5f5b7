using System.Diagnostics;
using System.Globalization;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Logging.Console;

namespace VNetMesh.Hosting.Logging;

/// <summary>
/// One line an event: time (UTC), level, logger, message, then the trace that it belongs to.
/// <c>2026-01-31T12:00:00.000Z warn: VNetMesh.Nat.Forwards the port is taken trace_id=… span_id=…</c>
/// </summary>
internal sealed class LineFormatter() : ConsoleFormatter(FormatterName)
{
    public const string FormatterName = "vnetmesh";

    public override void Write<TState>(in LogEntry<TState> logEntry, IExternalScopeProvider? scopeProvider, TextWriter textWriter)
    {
        textWriter.Write(DateTime.UtcNow.ToString("yyyy-MM-ddTHH:mm:ss.fffZ ", CultureInfo.InvariantCulture));
        textWriter.Write(Word(logEntry.LogLevel));
        textWriter.Write(": ");
        textWriter.Write(logEntry.Category);
        textWriter.Write(' ');
        textWriter.Write(OneLine(logEntry.Formatter(logEntry.State, logEntry.Exception)));
        if (logEntry.Exception is { } exception)
        {
            textWriter.Write(": ");
            textWriter.Write(OneLine(exception.ToString()));
        }
        if (Activity.Current is { } activity)
        {
            textWriter.Write(" trace_id=");
            textWriter.Write(activity.TraceId.ToHexString());
            textWriter.Write(" span_id=");
            textWriter.Write(activity.SpanId.ToHexString());
        }
        textWriter.Write('\n');
    }

    private static string Word(LogLevel level) => level switch
    {
        LogLevel.Trace => "trace",
        LogLevel.Debug => "debug",
        LogLevel.Information => "info",
        LogLevel.Warning => "warn",
        LogLevel.Error => "error",
        _ => "critical",
    };

    // What a guest sent may be in a message: it must not be able to begin a line of its own.
    private static string OneLine(string text) => text.AsSpan().IndexOfAny('\r', '\n') < 0 ? text : text.ReplaceLineEndings(" | ");
}
