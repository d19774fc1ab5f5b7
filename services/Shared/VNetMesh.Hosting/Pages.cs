using System.Globalization;

namespace VNetMesh.Hosting;

/// <summary>Pages of a list (AIP-158). The token is the key of the last item given, so pages stay right while the list changes.</summary>
public static class Pages
{
    /// <summary>Takes the page after the token from items that are sorted by key, ordinally.</summary>
    /// <exception cref="Grpc.Core.RpcException">INVALID_ARGUMENT (PAGE_SIZE_OUT_OF_RANGE).</exception>
    public static (List<T> Page, string NextToken) Take<T>(IEnumerable<T> sorted, Func<T, string> key, int pageSize, string pageToken, int maximum = 1000)
    {
        if (pageSize < 0)
            throw RpcErrors.InvalidArgument("PAGE_SIZE_OUT_OF_RANGE", $"page_size must be 0 to {maximum.ToString(CultureInfo.InvariantCulture)}");
        int size = pageSize == 0 ? maximum : Math.Min(pageSize, maximum);
        var page = new List<T>(Math.Min(size, 64));
        foreach (T item in sorted)
        {
            if (pageToken.Length > 0 && string.CompareOrdinal(key(item), pageToken) <= 0)
                continue;
            if (page.Count == size)
                return (page, key(page[^1]));
            page.Add(item);
        }
        return (page, "");
    }
}
