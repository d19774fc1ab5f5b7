namespace VNetMesh.Agent.HostChanges;

/// <summary>A socket of a VM, in a directory that goes when it is empty.</summary>
public sealed record SocketChange(string Owner, string Path) : HostChange(Owner)
{
    private const UnixFileMode DirectoryMode = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;

    public override ChangeKind Kind => ChangeKind.File;

    public override string Target => Path;

    /// <summary>The VM's monitor makes it.</summary>
    public bool IsMonitors { get; init; }

    public override string Describe() => IsMonitors ? $"keeps the place of the socket {Path}, which the VM's monitor makes" : $"made the socket {Path}";

    /// <summary>Makes its place; who listens binds it.</summary>
    public override HostChange Do(HostAccess host)
    {
        Directory.CreateDirectory(Parent, DirectoryMode);
        if (!IsMonitors)
            File.Delete(Path);
        return this;
    }

    public override void Undo(HostAccess host)
    {
        if (!Directory.Exists(Parent))
            return;
        File.Delete(Path);
        if (!Directory.EnumerateFileSystemEntries(Parent).Any())
            Directory.Delete(Parent);
    }

    public override bool IsStillThere(HostAccess host) => File.Exists(Path);

    private string Parent => System.IO.Path.GetDirectoryName(Path)!;
}
