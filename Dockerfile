# One build for all images: `docker build --target switch .`, or dhcp, nat, agent; compose.yaml names the targets.
# Runs with BuildKit and without it. The base images are arguments, to take them from a mirror or to pin them by digest.
ARG SDK_IMAGE=mcr.microsoft.com/dotnet/sdk:10.0
# switch, dhcp and nat need nothing but the runtime: no shell, no package manager, nothing to exploit.
ARG SERVICE_IMAGE=mcr.microsoft.com/dotnet/aspnet:10.0-noble-chiseled
# The agent makes devices and namespaces with the system's own programs.
ARG AGENT_IMAGE=mcr.microsoft.com/dotnet/aspnet:10.0-noble

FROM ${SDK_IMAGE} AS build
# Profiles of methods pay in what runs longer than a build.
ENV DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_GENERATE_ASPNET_CERTIFICATE=false DOTNET_TieredPGO=0
WORKDIR /source
COPY Directory.Build.props Directory.Packages.props global.json ./
COPY protos protos
COPY services services
# Once for all images. Packages are those of the lock files, or the build fails. (Analyzers, and asking for advisories, are for the development build.)
RUN set -e; \
    dotnet msbuild services/Images.proj -nologo -v:q -m -nr:false -t:Restore -p:RestoreLockedMode=true -p:NuGetAudit=false; \
    dotnet msbuild services/Images.proj -nologo -v:q -m -nr:false -p:Configuration=Release -p:RunAnalyzers=false -p:GenerateDocumentationFile=false -p:DebugType=none; \
    mkdir -p /out/empty; \
    for project in Switch Dhcp Nat Agent Cli; do mv artifacts/publish/$project/release /out/$project; done; \
    rm -r artifacts; \
    # Native libraries of other systems than this image's.
    for runtimes in /out/*/runtimes; do \
        find "$runtimes" -mindepth 1 -maxdepth 1 ! -name "linux-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')" ! -name linux -exec rm -r {} +; \
    done

FROM ${SERVICE_IMAGE} AS service
# The user of switch, dhcp and nat, as natively; the directories that volumes take their owner from.
COPY --from=build --chown=63108:63108 /out/empty /run/vnetmesh
COPY --from=build --chown=63108:63108 /out/empty /var/lib/vnetmesh
ENV DOTNET_EnableDiagnostics=0 DOTNET_gcServer=0 ASPNETCORE_HTTP_PORTS=
USER 63108:63108

FROM service AS switch
COPY --from=build /out/Switch /app
ENTRYPOINT ["/app/vnetmesh-switch"]

FROM service AS dhcp
COPY --from=build /out/Dhcp /app
ENTRYPOINT ["/app/vnetmesh-dhcp"]

FROM service AS nat
COPY --from=build /out/Nat /app
ENTRYPOINT ["/app/vnetmesh-nat"]

FROM ${AGENT_IMAGE} AS agent
# What the agent runs, and what the demo shows with; installed where the base image has not all of it already.
RUN for program in ip tc nsenter setsid udhcpc nft ping curl mount; do command -v $program >/dev/null || missing=1; done; \
    ls /usr/lib/*/libpcap.so.* >/dev/null 2>&1 || missing=1; \
    [ -z "$missing" ] || { apt-get update && apt-get install -y --no-install-recommends iproute2 util-linux mount udhcpc nftables iputils-ping curl libpcap0.8 && rm -rf /var/lib/apt/lists/*; }
COPY --from=build --chown=63108:63108 /out/empty /run/vnetmesh
COPY --from=build /out/empty /var/lib/vnetmesh
COPY --from=build /out/Agent /app
COPY --from=build /out/Cli /opt/vnet
RUN ln -s /opt/vnet/vnet /usr/local/bin/vnet && chmod 755 /app/udhcpc.script /app/container-start
ENV DOTNET_EnableDiagnostics=0 DOTNET_gcServer=0 ASPNETCORE_HTTP_PORTS= VNETMESH_SUPERVISOR="docker compose"
ENTRYPOINT ["/app/container-start"]
