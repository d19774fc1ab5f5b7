using Google.Protobuf;
using Spectre.Console;

namespace VNetMesh.Cli.Rendering;

/// <summary>What goes to standard output: tables for people, plain columns for pipes, JSON for programs.</summary>
internal sealed class Output(TextWriter writer, bool isTerminal, int width)
{
    private static readonly JsonFormatter Json = new(JsonFormatter.Settings.Default.WithFormatDefaultValues(true).WithIndentation());

    public static Output ForConsole()
    {
        bool terminal = !Console.IsOutputRedirected;
        return new Output(Console.Out, terminal, terminal ? Math.Max(80, SafeWidth()) : int.MaxValue);
    }

    public TextWriter Writer => writer;

    public bool IsTerminal => isTerminal;

    /// <summary>An array of messages in protobuf's JSON mapping (camelCase names, 64-bit numbers as strings).</summary>
    public void WriteJson<T>(IReadOnlyList<T> messages)
        where T : IMessage
    {
        if (messages.Count == 0)
        {
            writer.WriteLine("[]");
            return;
        }
        writer.WriteLine("[");
        for (int i = 0; i < messages.Count; i++)
            writer.WriteLine("  " + Json.Format(messages[i]).ReplaceLineEndings("\n  ") + (i + 1 < messages.Count ? "," : ""));
        writer.WriteLine("]");
    }

    public static string ToJson(IMessage message) => Json.Format(message);

    public void WriteJson(IMessage message) => writer.WriteLine(Json.Format(message));

    /// <summary>A table; says so when it is empty.</summary>
    public void WriteTable(string[] columns, IReadOnlyList<string[]> rows, string whenEmpty)
    {
        if (rows.Count == 0)
        {
            writer.WriteLine(whenEmpty);
            return;
        }
        if (isTerminal)
            WriteRichTable(columns, rows);
        else
            WritePlainTable(columns, rows);
    }

    /// <summary>Names and values, one a line.</summary>
    public void WriteFields(IEnumerable<(string Name, string Value)> fields)
    {
        var list = fields.Where(field => field.Value.Length > 0).ToList();
        int longest = list.Count == 0 ? 0 : list.Max(field => field.Name.Length);
        foreach ((string name, string value) in list)
            writer.WriteLine($"{name.PadRight(longest)}  {value}");
    }

    private static int SafeWidth()
    {
        try
        {
            return Console.WindowWidth;
        }
        catch (IOException)
        {
            return 100;
        }
    }

    private void WritePlainTable(string[] columns, IReadOnlyList<string[]> rows)
    {
        int[] widths = [.. columns.Select((column, i) => Math.Max(column.Length, rows.Max(row => row[i].Length)))];
        foreach (string[] row in rows.Prepend([.. columns.Select(column => column.ToUpperInvariant())]))
            writer.WriteLine(string.Join("  ", row.Select((cell, i) => cell.PadRight(widths[i]))).TrimEnd());
    }

    private void WriteRichTable(string[] columns, IReadOnlyList<string[]> rows)
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(writer) });
        console.Profile.Width = width;
        var table = new Table().Border(TableBorder.Rounded).BorderColor(Color.Grey);
        foreach (string column in columns)
            table.AddColumn(new TableColumn(new Markup($"[bold]{Markup.Escape(column)}[/]")));
        foreach (string[] row in rows)
            table.AddRow([.. row.Select(cell => new Text(cell))]);
        console.Write(table);
    }
}
