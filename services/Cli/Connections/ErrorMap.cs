using Grpc.Core;
using VNetMesh.Hosting;

namespace VNetMesh.Cli.Connections;

/// <summary>From a service's answer to an exit code and one line.</summary>
internal static class ErrorMap
{
    public static int ExitCodeOf(StatusCode status) => status switch
    {
        StatusCode.InvalidArgument or StatusCode.OutOfRange => ExitCode.Usage,
        StatusCode.PermissionDenied or StatusCode.Unauthenticated => ExitCode.Permission,
        StatusCode.Unavailable => ExitCode.NotRunning,
        StatusCode.NotFound => ExitCode.NotFound,
        StatusCode.AlreadyExists => ExitCode.AlreadyExists,
        StatusCode.FailedPrecondition or StatusCode.ResourceExhausted or StatusCode.Aborted => ExitCode.Refused,
        _ => ExitCode.Failed,
    };

    public static string MessageOf(RpcException exception)
    {
        string? reason = RpcErrors.ReasonOf(exception);
        if (exception.StatusCode == StatusCode.Unavailable && reason is null)
            return "the services do not answer; start them with: vnet up (and see: vnet status)";
        if (exception.StatusCode == StatusCode.DeadlineExceeded)
            return "the service did not answer in time; see: vnet status";
        if (exception.StatusCode == StatusCode.Unimplemented)
            return "the running service does not know this call: it is of another version; restart with: vnet down, vnet up";
        string detail = exception.Status.Detail.ReplaceLineEndings(" ");
        return reason is null ? detail : $"{detail} [{reason}]";
    }
}
