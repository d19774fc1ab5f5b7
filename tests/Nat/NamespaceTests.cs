using VNetMesh.Links;
using VNetMesh.Nat.Tests.Support;

namespace VNetMesh.Nat.Tests;

/// <summary>The gateway against real kernels: a guest's, the host's and a remote's, each in a namespace.</summary>
public sealed class NamespaceTests
{
    [Fact]
    public void A_guest_pings_the_gateway_and_fetches_from_the_wan()
    {
        using var lab = new NamespaceLab();
        using var nat = new TestNat(lab.Host);
        using TapLink link = lab.AddGuest(1, "192.168.108.10/24", "192.168.108.2");
        nat.Ask(() => nat.Gateway.OnLinkUp(link));

        (int code, string output) = NamespaceLab.In(lab.Guest(), "ping -c 2 -i 0.2 -W 2 192.168.108.2");
        Assert.True(code == 0, output);

        string body = Path.GetTempFileName();
        File.WriteAllBytes(body, new byte[5_000_000]);
        lab.Start(lab.Wan, $"python3 -m http.server 8080 --bind {NamespaceLab.WanAddress} --directory {Path.GetDirectoryName(body)}");
        Thread.Sleep(700);
        (code, output) = NamespaceLab.In(lab.Guest(), $"curl -sS -m 10 -o /dev/null -w %{{size_download}} http://{NamespaceLab.WanAddress}:8080/{Path.GetFileName(body)}");
        File.Delete(body);
        Assert.True(code == 0, output);
        Assert.Equal("5000000", output);
    }
}
