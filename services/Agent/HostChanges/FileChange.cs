namespace VNetMesh.Agent.HostChanges;

/// <summary>A file that the agent keeps on the host, with the directories that it made for it.</summary>
/// <param name="ContentBefore">Null where there was no file.</param>
/// <param name="MadeDirectories">Outermost first.</param>
public sealed record FileChange(string Owner, string Path, string? ContentBefore, IReadOnlyList<string> MadeDirectories) : HostChange(Owner)
{
    private const int MaxKept = 64 * 1024;

    public override ChangeKind Kind => ChangeKind.File;

    public override string Target => Path;

    public override string Before => ContentBefore ?? "";

    public override bool EndsWithBoot => false;

    public override string Describe() => ContentBefore is null ? $"made the file {Path}" : $"took over the file {Path}";

    /// <summary>Looks what is there now.</summary>
    /// <exception cref="IOException">What is there is larger than 64 KiB, and none of ours.</exception>
    public static FileChange Plan(string owner, string path)
    {
        var missing = new List<string>();
        for (string? directory = System.IO.Path.GetDirectoryName(path); directory is not null && !Directory.Exists(directory); directory = System.IO.Path.GetDirectoryName(directory))
            missing.Insert(0, directory);
        if (File.Exists(path) && new FileInfo(path).Length > MaxKept)
            throw new IOException($"{path} is larger than {MaxKept} octets: it is left alone");
        return new FileChange(owner, path, File.Exists(path) ? File.ReadAllText(path) : null, missing);
    }

    public override HostChange Do(HostAccess host)
    {
        foreach (string directory in MadeDirectories)
            Directory.CreateDirectory(directory);
        // Others write it from now on; it must be there for `ip netns exec` to bind.
        if (ContentBefore is null)
            File.WriteAllText(Path, "");
        return this;
    }

    public override void Undo(HostAccess host)
    {
        if (ContentBefore is not null)
            File.WriteAllText(Path, ContentBefore);
        else
            File.Delete(Path);
        foreach (string directory in MadeDirectories.Reverse())
        {
            if (Directory.Exists(directory) && !Directory.EnumerateFileSystemEntries(directory).Any())
                Directory.Delete(directory);
        }
    }

    public override bool IsStillThere(HostAccess host) => File.Exists(Path);
}
