using VNetMesh.Agent.Guests;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Hosting;

namespace VNetMesh.Agent;

/// <summary>
/// `vnetmesh-agent release`: gives the host back where no agent runs that could be asked to (it died, or the machine is
/// to be cleaned by hand).
/// </summary>
public static class ReleaseCommand
{
    public const string Name = "release";

    /// <returns>0: all is undone. 1: something could not be. 2: an agent runs, which is to be asked instead.</returns>
    public static int Run(RuntimePaths paths, TextWriter output, TextWriter error)
    {
        if (!Directory.Exists(paths.State("agent")))
        {
            output.WriteLine("0 changes of this host undone: no agent ever ran with this state directory");
            return 0;
        }
        try
        {
            using HostNamespaces namespaces = HostNamespaces.Find();
            using AgentDatabase database = AgentDatabase.Open(paths.State("agent"));
            new GuestStore(database).Clear();
            var journal = new ChangeJournal(database, new HostAccess(namespaces), TimeProvider.System);
            (int undone, IReadOnlyList<string> failures) = journal.UndoAll(_ => true);
            foreach (string failure in failures)
                error.WriteLine($"could not be undone: {failure}");
            output.WriteLine($"{undone} changes of this host undone");
            return failures.Count == 0 ? 0 : 1;
        }
        catch (DatabaseInUseException exception)
        {
            error.WriteLine($"{exception.Message}: use 'vnet down'");
            return 2;
        }
    }
}
