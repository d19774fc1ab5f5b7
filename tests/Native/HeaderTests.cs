using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;

namespace VNetMesh.Native.Tests;

/// <summary>
/// Every public constant and structure of VNetMesh.Native against the C headers of the machine: a C program of static
/// asserts is made from the assembly, and must compile. A constant that is added is covered without a word here, or the
/// program does not compile for want of its header.
/// </summary>
public sealed partial class HeaderTests
{
    private const string Headers = """
        #define _GNU_SOURCE
        #include <stddef.h>
        #include <errno.h>
        #include <fcntl.h>
        #include <poll.h>
        #include <sched.h>
        #include <signal.h>
        #include <unistd.h>
        #include <net/if.h>
        #include <netinet/in.h>
        #include <netinet/ip.h>
        #include <netinet/ip_icmp.h>
        #include <netinet/tcp.h>
        #include <netinet/udp.h>
        #include <sys/epoll.h>
        #include <sys/eventfd.h>
        #include <sys/file.h>
        #include <sys/ioctl.h>
        #include <sys/mman.h>
        #include <sys/mount.h>
        #include <sys/prctl.h>
        #include <sys/resource.h>
        #include <sys/socket.h>
        #include <sys/stat.h>
        #include <sys/syscall.h>
        #include <sys/timerfd.h>
        #include <sys/un.h>
        #include <sys/wait.h>
        #include <linux/bpf.h>
        #include <linux/capability.h>
        #include <linux/errqueue.h>
        #include <linux/if.h>
        #include <linux/if_link.h>
        #include <linux/if_packet.h>
        #include <linux/if_tun.h>
        #include <linux/netlink.h>
        #include <linux/nsfs.h>
        #include <linux/if_arp.h>
        #include <linux/pkt_cls.h>
        #include <linux/pkt_sched.h>
        #include <linux/rtnetlink.h>
        #include <linux/sockios.h>

        """;

    /// <summary>In C a structure and a function can bear one name.</summary>
    private static readonly Dictionary<string, string> OtherNames = new(StringComparer.Ordinal) { ["statx_buffer"] = "statx" };

    /// <summary>Younger than Linux 6.1, whose headers Debian 12 has: compared where they are.</summary>
    private static readonly HashSet<string> Newer = ["TUN_F_USO4", "TUN_F_USO6"];

    [Fact]
    public void Constants_and_structures_are_those_of_the_headers()
    {
        string[] constants = [.. Constants()], structures = [.. Structures()];
        Assert.True(constants.Length > 100 && structures.Length > 20, $"only {constants.Length} constants and {structures.Length} facts of structures were found");
        AssertCompiles(string.Join('\n', constants.Concat(structures)), shouldCompile: true);
    }

    /// <summary>The test can fail: one wrong number, and it does not compile.</summary>
    [Fact]
    public void A_wrong_number_does_not_compile() => AssertCompiles(Assertion("MSG_PEEK", 3, sizeof(int)), shouldCompile: false);

    private static IEnumerable<Type> Types() => typeof(SysSocket).Assembly.GetTypes().Where(type => type.IsPublic && type.IsAbstract && type.IsSealed);

    private static IEnumerable<string> Constants() =>
        from type in Types()
        from field in type.GetFields(BindingFlags.Public | BindingFlags.Static)
        where field.IsLiteral && field.FieldType != typeof(string) && CName().IsMatch(field.Name)
        select Newer.Contains(field.Name) ? $"#ifdef {field.Name}\n{Of(field)}\n#endif" : Of(field);

    private static string Of(FieldInfo field) =>
        Assertion(field.Name, Convert.ToInt64(field.GetRawConstantValue(), CultureInfo.InvariantCulture), Marshal.SizeOf(field.FieldType));

    /// <summary>Compared in the size of the field that it is for: 0x8000 is a negative short here and a positive int in C.</summary>
    private static string Assertion(string name, long value, int size)
    {
        ulong mask = size == 8 ? ulong.MaxValue : (1UL << (size * 8)) - 1;
        return string.Create(CultureInfo.InvariantCulture, $"_Static_assert(((unsigned long long)({name}) & {mask}ULL) == {(ulong)value & mask}ULL, \"{name}\");");
    }

    private static IEnumerable<string> Structures()
    {
        foreach (Type type in Types().SelectMany(type => type.GetNestedTypes(BindingFlags.Public)).Where(type => type.IsValueType && !type.IsEnum))
        {
            string name = OtherNames.GetValueOrDefault(type.Name, type.Name);
            yield return $"_Static_assert(sizeof(struct {name}) == {Marshal.SizeOf(type)}, \"sizeof {type.Name}\");";
            foreach (FieldInfo field in type.GetFields(BindingFlags.Public | BindingFlags.Instance))
            {
                string place = $"offsetof(struct {name}, {field.Name})";
                yield return $"_Static_assert({place} == {Marshal.OffsetOf(type, field.Name)}, \"{type.Name}.{field.Name}\");";
                yield return $"_Static_assert(sizeof(((struct {name} *)0)->{field.Name}) == {SizeOf(field)}, \"size of {type.Name}.{field.Name}\");";
            }
        }
    }

    private static int SizeOf(FieldInfo field)
    {
        if (field.FieldType.IsPointer)
            return IntPtr.Size;
        if (field.GetCustomAttribute<System.Runtime.CompilerServices.FixedBufferAttribute>() is { } buffer)
            return buffer.Length * Marshal.SizeOf(buffer.ElementType);
        return Marshal.SizeOf(field.FieldType);
    }

    private static void AssertCompiles(string assertions, bool shouldCompile)
    {
        string? compiler = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Select(folder => Path.Combine(folder, "cc")).FirstOrDefault(File.Exists);
        if (compiler is null)
            Assert.Skip("there is no C compiler (cc)");
        if (RuntimeInformation.ProcessArchitecture != Architecture.X64)
            Assert.Skip("struct epoll_event of this processor is not the one that the library shows");
        var start = new ProcessStartInfo(compiler, "-x c -fsyntax-only -") { RedirectStandardInput = true, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        process.StandardInput.Write(new StringBuilder(Headers).Append('\n').Append(assertions).Append('\n'));
        process.StandardInput.Close();
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        if (errors.Contains("No such file", StringComparison.Ordinal))
            Assert.Skip("the headers of libc or of the kernel are not installed: " + errors.Split('\n')[0]);
        Assert.True(process.ExitCode == 0 == shouldCompile, errors);
    }

    // C's own names: what is written otherwise is the library's.
    [GeneratedRegex("^[A-Z][A-Z0-9]*(_[A-Za-z0-9]+)*$")]
    private static partial Regex CName();
}
