namespace VNetMesh.Agent.HostChanges;

/// <summary>A directory that several files of ours may be in; it goes when it is empty.</summary>
public sealed record DirectoryChange(string Owner, string Path) : HostChange(Owner)
{
    public override ChangeKind Kind => ChangeKind.File;

    public override string Target => Path;

    public override bool EndsWithBoot => false;

    public override string Describe() => $"made the directory {Path}";

    public override HostChange Do(HostAccess host)
    {
        Directory.CreateDirectory(Path);
        return this;
    }

    public override void Undo(HostAccess host)
    {
        if (Directory.Exists(Path) && !Directory.EnumerateFileSystemEntries(Path).Any())
            Directory.Delete(Path);
    }

    public override bool IsStillThere(HostAccess host) => Directory.Exists(Path);
}
