namespace VNetMesh.Cli.Doctor;

/// <summary>What a check found.</summary>
/// <param name="IsGood">Null: there was nothing to check.</param>
/// <param name="Text">What is so.</param>
/// <param name="Advice">What to do; empty when all is well.</param>
internal sealed record Finding(bool? IsGood, string Text, string Advice)
{
    public static Finding Good(string text) => new(true, text, "");

    public static Finding Bad(string text, string advice) => new(false, text, advice);

    public static Finding Skipped(string why) => new(null, why, "");
}

/// <summary>A check: its name, and how it is made.</summary>
internal sealed record Check(string Name, Func<CancellationToken, Task<Finding>> Make);

/// <summary>For JSON. State is ok, fail, skipped or unchecked.</summary>
internal sealed record FindingView(string Check, string State, string Text, string Advice);

[System.Text.Json.Serialization.JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = System.Text.Json.Serialization.JsonKnownNamingPolicy.CamelCase)]
[System.Text.Json.Serialization.JsonSerializable(typeof(List<FindingView>))]
internal sealed partial class FindingJson : System.Text.Json.Serialization.JsonSerializerContext;
