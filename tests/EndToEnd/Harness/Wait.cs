using System.Diagnostics;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>Waits for what must become true, with a limit.</summary>
public static class Wait
{
    /// <summary>Asks until the answer is true; fails with <paramref name="what"/> and the last exception after the limit. Returns how long it took.</summary>
    public static async Task<TimeSpan> UntilAsync(TimeSpan limit, string what, Func<Task<bool>> condition)
    {
        var watch = Stopwatch.StartNew();
        Exception? last = null;
        while (true)
        {
            try
            {
                if (await condition())
                    return watch.Elapsed;
                last = null;
            }
            catch (Exception exception) when (exception is not OperationCanceledException)
            {
                last = exception;
            }
            if (watch.Elapsed > limit)
                Assert.Fail($"not within {limit.TotalSeconds:0.#} s: {what}{(last is null ? "" : "\nlast: " + last.Message)}");
            await Task.Delay(20);
        }
    }

    public static Task<TimeSpan> UntilAsync(TimeSpan limit, string what, Func<bool> condition) => UntilAsync(limit, what, () => Task.FromResult(condition()));
}
