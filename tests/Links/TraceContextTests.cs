namespace VNetMesh.Links.Tests;

public sealed class TraceContextTests
{
    [Theory]
    [InlineData("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true)]
    [InlineData("00-0000000000000000000000000000000a-000000000000000b-00", false)]
    public void A_traceparent_is_read_and_written_as_it_was(string text, bool isSampled)
    {
        TraceContext trace = TraceContext.Parse(text);
        Assert.True(trace.IsPresent);
        Assert.Equal(isSampled, trace.IsSampled);
        Assert.Equal(text[3..35], trace.TraceIdText);
        Assert.Equal(text, trace.ToTraceparent());
    }

    [Theory]
    [InlineData("")]
    [InlineData("00")]
    [InlineData("00-00000000000000000000000000000000-b7ad6b7169203331-01")]
    [InlineData("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01")]
    [InlineData("00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01")]
    [InlineData("00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01")]
    [InlineData("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
    [InlineData("-----------------------------------------------------------")]
    public void What_cannot_be_read_is_none(string text)
    {
        Assert.False(TraceContext.Parse(text).IsPresent);
        Assert.Equal("", TraceContext.Parse(text).ToTraceparent());
    }
}
