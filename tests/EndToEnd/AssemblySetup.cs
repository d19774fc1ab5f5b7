using VNetMesh.EndToEnd.Tests.Harness;

// Two cores and real time: one test at a time, or measured times mean nothing.
[assembly: Xunit.v3.Parallelization(Mode = Xunit.Sdk.ParallelMode.None)]
[assembly: AssemblyFixture(typeof(SharedInstance))]
