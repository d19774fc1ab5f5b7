using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Hosting.Logging;

namespace VNetMesh.Hosting.Tests.Logging;

public sealed class LineFormatterTests
{
    [Fact]
    public void An_event_is_one_line_whatever_it_contains()
    {
        string line = Format("host name 'a\nb\r\nc'", new InvalidOperationException("two\nlines"));
        Assert.Matches(@"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warn: VNetMesh\.Test host name 'a \| b \| c': .*InvalidOperationException: two \| lines\n$", line);
    }

    [Fact]
    public void It_bears_the_trace_that_it_belongs_to()
    {
        using var activity = new Activity("test");
        activity.SetIdFormat(ActivityIdFormat.W3C).Start();
        Assert.EndsWith($" said trace_id={activity.TraceId} span_id={activity.SpanId}\n", Format("said", null), StringComparison.Ordinal);
    }

    private static string Format(string message, Exception? exception)
    {
        using var writer = new StringWriter();
        new LineFormatter().Write(new LogEntry<string>(LogLevel.Warning, "VNetMesh.Test", default, message, exception, (state, _) => state), null, writer);
        return writer.ToString();
    }
}
