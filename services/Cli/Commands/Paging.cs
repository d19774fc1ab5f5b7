namespace VNetMesh.Cli.Commands;

/// <summary>Fetches a list page by page.</summary>
internal static class Paging
{
    public static async Task<IReadOnlyList<T>> AllAsync<T>(Func<string, Task<(IEnumerable<T> Items, string NextToken)>> page)
    {
        var all = new List<T>();
        string token = "";
        do
        {
            (IEnumerable<T> items, token) = await page(token);
            all.AddRange(items);
        }
        while (token.Length > 0);
        return all;
    }
}
