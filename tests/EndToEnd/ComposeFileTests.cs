using VNetMesh.EndToEnd.Tests.Compose;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>compose.yaml against the schema of today's Compose specification, and against what it promises.</summary>
public sealed class ComposeFileTests
{
    // Exit code 9: the library is not there.
    private const string Check = """
        import json, sys
        try:
            import jsonschema, yaml
        except ImportError as missing:
            print(missing); sys.exit(9)
        schema, file = json.load(open(sys.argv[1])), yaml.safe_load(open(sys.argv[2]))
        if len(sys.argv) > 3:
            file["services"]["switch"][sys.argv[3]] = {}
        errors = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in jsonschema.Draft7Validator(schema).iter_errors(file)]
        print("\n".join(errors)); sys.exit(1 if errors else 0)
        """;

    [Fact]
    public async Task It_is_valid_for_the_Compose_specification()
    {
        CommandResult result = await CheckAsync();
        Assert.True(result.ExitCode == 0, result.Output);
    }

    [Fact]
    public async Task The_check_refuses_what_the_specification_does_not_know() => Assert.Contains("netwrok_mode", (await CheckAsync("netwrok_mode")).Output, StringComparison.Ordinal);

    private static async Task<CommandResult> CheckAsync(params string[] more)
    {
        Require.Programs("python3");
        string folder = Path.Combine(Repository.Root, "tests", "EndToEnd", "Compose");
        CommandResult result = await Command.RunAsync(["python3", "-W", "ignore", "-c", Check, Path.Combine(folder, "compose-spec.json"), Path.Combine(Repository.Root, "compose.yaml"), .. more]);
        Assert.SkipWhen(result.ExitCode == 9, "needs python3-jsonschema and python3-yaml (./test.sh installs them): " + result.Output);
        return result;
    }
}
