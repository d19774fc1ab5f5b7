using VNetMesh.Agent.Guests;

namespace VNetMesh.Agent.Tests.Guests;

public sealed class GuestFeedTests
{
    [Fact]
    public void A_watch_begins_with_what_is_and_goes_on_with_what_changes()
    {
        var feed = new GuestFeed();
        feed.Publish([View("a"), View("b")]);
        using GuestFeed.Watch watch = feed.Subscribe();
        Assert.Equal(["a", "b"], watch.Snapshot.Keys);

        feed.Publish([View("a"), View("b") with { Addresses = ["192.0.2.1/24"] }, View("c")]);
        feed.Publish([View("a"), View("b") with { Addresses = ["192.0.2.1/24"] }, View("c")]); // nothing new
        feed.Publish([View("b") with { Addresses = ["192.0.2.1/24"] }]);

        var seen = new List<(GuestEvent, string)>();
        while (watch.Changes.TryRead(out (GuestEvent Event, GuestView Guest) change))
            seen.Add((change.Event, change.Guest.Spec.Id));
        Assert.Equal([(GuestEvent.Updated, "b"), (GuestEvent.Created, "c"), (GuestEvent.Deleted, "a"), (GuestEvent.Deleted, "c")], seen);
    }

    [Fact]
    public async Task A_watcher_that_does_not_read_is_ended_and_the_others_go_on()
    {
        var feed = new GuestFeed();
        using GuestFeed.Watch slow = feed.Subscribe();
        for (int i = 0; i < 1100; i++)
            feed.Publish(i % 2 == 0 ? [View("a")] : []);
        using GuestFeed.Watch fresh = feed.Subscribe();
        feed.Publish([View("b")]);
        Assert.True(fresh.Changes.TryRead(out _));
        int read = 0;
        while (slow.Changes.TryRead(out _))
            read++;
        Assert.Equal(1024, read);
        await Assert.ThrowsAsync<WatcherTooSlowException>(() => slow.Changes.Completion);
    }

    private static GuestView View(string id) =>
        new(new GuestSpec(id, "vmnet8", "02:56:4e:00:00:01", "/run/netns/" + id, "eth0", true, false, DateTimeOffset.UnixEpoch), GuestStatus.Starting, [], [], 0);
}
