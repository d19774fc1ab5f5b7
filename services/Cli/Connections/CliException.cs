namespace VNetMesh.Cli.Connections;

/// <summary>Exit codes; docs/cli.md lists them for users.</summary>
internal static class ExitCode
{
    public const int Ok = 0;
    public const int Failed = 1;
    public const int Usage = 2;
    public const int Permission = 3;
    public const int NotRunning = 4;
    public const int NotFound = 5;
    public const int AlreadyExists = 6;
    public const int Refused = 7;

    /// <summary>Of `vnet apply --dry-run`: there are differences.</summary>
    public const int Differs = 8;
}

/// <summary>An error that the user can act on: one line that says what is wrong and what to do.</summary>
internal sealed class CliException(int exitCode, string message) : Exception(message)
{
    public int ExitCode { get; } = exitCode;
}
