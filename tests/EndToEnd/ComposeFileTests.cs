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

    // What it takes from the tree is there; images are of a version; each service has what keeps it in its bounds; the collector's pipelines name what there is.
    private const string CheckTree = """
        import os, sys
        try:
            import yaml
        except ImportError as missing:
            print(missing); sys.exit(9)
        root = sys.argv[1]
        load = lambda path: yaml.safe_load(open(os.path.join(root, path)))
        file, errors = load("compose.yaml"), []
        for name, service in file["services"].items():
            errors += [f"{name}: {key} is missing" for key in ("mem_limit", "pids_limit", "restart", "logging") if key not in service]
            errors += [] if service["cap_drop"] == ["ALL"] and service["read_only"] and "no-new-privileges:true" in service["security_opt"] else [f"{name}: has rights it was not given"]
            if "build" not in service:
                tag = service["image"].rstrip("}").rpartition(":")[2]
                errors += [] if service["profiles"] == ["observability"] and tag.count(".") == 2 else [f"{name}: {service['image']}"]
                errors += [f"{name}: {port} is open to others" for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
            for mount in service["volumes"]:
                source = mount.split(":")[0]
                if source.startswith("./") and not os.path.exists(os.path.join(root, source)):
                    errors.append(f"{name}: {source} is not in the tree")
                if source[0] not in "./$" and source not in file["volumes"]:
                    errors.append(f"{name}: the volume {source} is not declared")
        collector = load("services/Observability/collector/collector.yml")
        for signal, pipeline in collector["service"]["pipelines"].items():
            for kind, names in pipeline.items():
                errors += [f"collector: {signal} has no {kind} {name}" for name in names if name not in collector[kind]]
        tempo = load("services/Observability/tempo/tempo.yml")
        published = [port.rsplit(":", 1) for port in file["services"]["tempo"]["ports"]]
        if dict((inner, outer) for outer, inner in published) != {str(tempo["server"]["http_listen_port"]): "127.0.0.1:3200", "4317": collector["exporters"]["otlp/tempo"]["endpoint"]}:
            errors.append("tempo listens elsewhere than the others look")
        print("\n".join(errors)); sys.exit(1 if errors else 0)
        """;

    [Fact]
    public async Task It_mounts_what_there_is_and_bounds_every_service()
    {
        Require.Programs("python3");
        CommandResult result = await Command.RunAsync(["python3", "-c", CheckTree, Repository.Root]);
        Assert.SkipWhen(result.ExitCode == 9, "needs python3-yaml (./test.sh installs it): " + result.Output);
        Assert.True(result.ExitCode == 0, result.Output + result.Error);
    }

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
