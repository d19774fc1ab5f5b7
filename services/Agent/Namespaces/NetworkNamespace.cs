using VNetMesh.Native;

namespace VNetMesh.Agent.Namespaces;

/// <summary>An open network namespace: its path, a descriptor, and what tells it from every other.</summary>
public sealed class NetworkNamespace : IDisposable
{
    internal NetworkNamespace(string path, FileDescriptor descriptor, string identity) => (Path, Descriptor, Identity) = (path, descriptor, identity);

    public string Path { get; }

    /// <summary>Keeps the namespace alive as long as it is open.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>The inode in the way that /proc writes it, "net:[4026532177]"; of two namespaces that live at the same time never the same.</summary>
    public string Identity { get; }

    public T Run<T>(Func<T> function) => NamespaceRunner.Run(Descriptor, function);

    public void Dispose() => Descriptor.Dispose();
}

/// <summary>There is no namespace at that path, or what is there is none.</summary>
public sealed class NamespaceNotFoundException(string path, string why) : IOException($"there is no network namespace at {path}: {why}")
{
    public string Path { get; } = path;
}
