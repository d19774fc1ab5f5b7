namespace VNetMesh.Agent.HostChanges;

/// <summary>A socket that the agent listens on for a VM, in a directory that goes when it is empty.</summary>
public sealed record SocketChange(string Owner, string Path) : HostChange(Owner)
{
    private const UnixFileMode DirectoryMode = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;

    public override ChangeKind Kind => ChangeKind.File;

    public override string Target => Path;

    public override string Describe() => $"made the socket {Path}";

    /// <summary>Makes its place; who listens binds it.</summary>
    public override HostChange Do(HostAccess host)
    {
        Directory.CreateDirectory(Parent, DirectoryMode);
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
