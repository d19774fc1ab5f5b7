using Grpc.Core;
using VNetMesh.Hosting;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Rpc;

/// <summary>The registry's refusals as gRPC errors.</summary>
internal static class Refusals
{
    public static RpcException ToRpc(this RegistryException refusal) => RpcErrors.Create(CodeOf(refusal.Kind), refusal.Reason, refusal.Message, [.. refusal.Metadata]);

    /// <summary>Does something, and gives a refusal as a gRPC error.</summary>
    public static T Translate<T>(Func<T> action)
    {
        try
        {
            return action();
        }
        catch (RegistryException refusal)
        {
            throw refusal.ToRpc();
        }
    }

    public static RpcException Stopping() => RpcErrors.Unavailable("SWITCH_STOPPING", "the switch is stopping; try again when it is back");

    private static StatusCode CodeOf(RefusalKind kind) => kind switch
    {
        RefusalKind.Invalid => StatusCode.InvalidArgument,
        RefusalKind.NotFound => StatusCode.NotFound,
        RefusalKind.AlreadyExists => StatusCode.AlreadyExists,
        RefusalKind.Precondition => StatusCode.FailedPrecondition,
        RefusalKind.Exhausted => StatusCode.ResourceExhausted,
        _ => StatusCode.Aborted,
    };
}
