using VNetMesh.Declarations;

namespace VNetMesh.Switch.Registry;

/// <summary>
/// Brings what vnetmesh.yaml declares into the registry: makes networks that are missing and sets the declared fields of
/// those that are there. Networks and fields that the file does not name stay as they are, so a file that is broken or gone
/// loses nothing: what was wrong is logged, and stands in the conditions of the networks concerned.
/// </summary>
public sealed partial class DeclarationReconciler(NetworkRegistry registry, ILogger<DeclarationReconciler> logger)
{
    private const string Source = "vnetmesh.yaml";

    /// <param name="path">Need not exist.</param>
    public void Reconcile(string path)
    {
        IReadOnlyList<DeclaredNetwork> declared;
        try
        {
            declared = Read(path);
        }
        catch (Exception exception) when (exception is DeclarationException or IOException or UnauthorizedAccessException)
        {
            LogUnusable(path, exception.Message);
            foreach (NetworkDefinition network in registry.List())
                SetConditions(network.Id, [$"{Source} is not used: {exception.Message}"]);
            return;
        }
        var failed = new Dictionary<string, string>();
        foreach (DeclaredNetwork network in declared)
        {
            if (Apply(network) is not { } refusal)
                continue;
            string condition = $"{Source}, line {network.Line}: {refusal.Message} ({refusal.Reason})";
            LogRefused(path, network.Id, condition);
            failed[network.Id] = condition;
        }
        foreach (NetworkDefinition network in registry.List())
            SetConditions(network.Id, failed.TryGetValue(network.Id, out string? condition) ? [condition] : []);
    }

    private static IReadOnlyList<DeclaredNetwork> Read(string path)
    {
        var file = new FileInfo(path);
        if (!file.Exists)
            return [];
        if (file.Length > DeclarationReader.MaxFileSize)
            throw new DeclarationException("the file is larger than 1 MiB");
        return NetworkDeclarations.Parse(File.ReadAllText(path));
    }

    private RegistryException? Apply(DeclaredNetwork declared)
    {
        string name = NetworkDefinition.Prefix + declared.Id;
        try
        {
            if (registry.List().Any(network => network.Id == declared.Id))
                registry.Update(name, 0, declared.Fields, declared.Apply);
            else
                registry.Create(declared.Apply(new NetworkDraft { Id = declared.Id }));
            return null;
        }
        catch (RegistryException refusal)
        {
            return refusal;
        }
    }

    private void SetConditions(string id, IReadOnlyList<string> conditions)
    {
        try
        {
            registry.SetConditions(NetworkDefinition.Prefix + id, conditions);
        }
        catch (RegistryException refusal) when (refusal.Kind == RefusalKind.NotFound)
        {
            // Deleted meanwhile.
        }
    }

    [LoggerMessage(LogLevel.Error, "{Path} is not used, the stored networks are: {Problem}")]
    private partial void LogUnusable(string path, string problem);

    [LoggerMessage(LogLevel.Error, "{Path}: {Network} is not as declared: {Problem}")]
    private partial void LogRefused(string path, string network, string problem);
}
