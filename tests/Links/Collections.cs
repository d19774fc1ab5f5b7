namespace VNetMesh.Links.Tests;

/// <summary>Tests that count this process's descriptors, or close some to see whose number is used: no others run beside them.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class CountsDescriptors
{
    public const string Name = "counts descriptors";
}
