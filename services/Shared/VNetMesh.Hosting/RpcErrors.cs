using Google.Protobuf.WellKnownTypes;
using Google.Rpc;
using Grpc.Core;
using Status = Google.Rpc.Status;

namespace VNetMesh.Hosting;

/// <summary>
/// Errors as AIP-193 wants them: a canonical code, a sentence for people that says what is wrong and what to
/// do, and a google.rpc.ErrorInfo with domain "vnetmesh", an UPPER_SNAKE_CASE reason and metadata for programs.
/// </summary>
public static class RpcErrors
{
    public const string Domain = "vnetmesh";

    public static RpcException InvalidArgument(string reason, string message, params (string Key, string Value)[] metadata) =>
        Create(StatusCode.InvalidArgument, reason, message, metadata);

    public static RpcException NotFound(string reason, string message, params (string Key, string Value)[] metadata) =>
        Create(StatusCode.NotFound, reason, message, metadata);

    public static RpcException AlreadyExists(string reason, string message, params (string Key, string Value)[] metadata) =>
        Create(StatusCode.AlreadyExists, reason, message, metadata);

    public static RpcException FailedPrecondition(string reason, string message, params (string Key, string Value)[] metadata) =>
        Create(StatusCode.FailedPrecondition, reason, message, metadata);

    public static RpcException ResourceExhausted(string reason, string message, params (string Key, string Value)[] metadata) =>
        Create(StatusCode.ResourceExhausted, reason, message, metadata);

    public static RpcException Aborted(string reason, string message, params (string Key, string Value)[] metadata) =>
        Create(StatusCode.Aborted, reason, message, metadata);

    public static RpcException Unavailable(string reason, string message, params (string Key, string Value)[] metadata) =>
        Create(StatusCode.Unavailable, reason, message, metadata);

    public static RpcException Internal(string reason, string message, params (string Key, string Value)[] metadata) =>
        Create(StatusCode.Internal, reason, message, metadata);

    public static RpcException Create(StatusCode code, string reason, string message, params (string Key, string Value)[] metadata)
    {
        var info = new ErrorInfo { Domain = Domain, Reason = reason };
        foreach ((string key, string value) in metadata)
            info.Metadata[key] = value;
        var status = new Status { Code = (int)code, Message = message, Details = { Any.Pack(info) } };
        return status.ToRpcException();
    }

    /// <summary>The reason in an error of a VNetMesh service; null when it bears none.</summary>
    public static string? ReasonOf(RpcException exception) => exception.GetRpcStatus()?.GetDetail<ErrorInfo>()?.Reason;
}
