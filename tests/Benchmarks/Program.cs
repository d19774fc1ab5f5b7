using System.CommandLine;
using VNetMesh.Benchmarks.Load;

namespace VNetMesh.Benchmarks;

/// <summary>VNetMesh beside its peers. bench.sh installs what is needed, builds, and runs this.</summary>
internal static class Program
{
    private static async Task<int> Main(string[] args)
    {
        if (args is [Worker.Verb, _, ..])
            return await Worker.MainAsync(args[1..]);
        var options = new BenchOptions();
        ParseResult parsed = options.Root.Parse(args);
        if (parsed.Errors.Count > 0)
        {
            await Console.Error.WriteLineAsync($"bench: {parsed.Errors[0].Message}; see: ./bench.sh --help");
            return 2;
        }
        return await parsed.InvokeAsync();
    }
}
