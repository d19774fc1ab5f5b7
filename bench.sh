#!/usr/bin/env bash
# Measures VNetMesh beside its peers, in the same run, in network namespaces that are connected to nothing else.
# Installs the peers from Debian, builds what is stale (Release), runs tests/Benchmarks.
# Usage: ./bench.sh [--row NAME]… [--rounds N] [--seconds S] [--json FILE] [--list]     more by --help.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

say() { printf 'bench.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The Debian packages of the peers and of the tools, each by a program that shows whether it is there.
missing_packages() {
    local pair
    for pair in ip:iproute2 ping:iputils-ping nsenter:util-linux setpriv:util-linux udhcpc:udhcpc sysctl:procps \
                pasta:passt slirp4netns:slirp4netns vde_switch:vde2 iperf3:iperf3 wrk:wrk nginx:nginx-light qemu-system-x86_64:qemu-system-x86 busybox:busybox; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
}

install_packages() {
    local missing log
    missing=$(missing_packages | sort -u | tr '\n' ' ')
    [ -n "${missing// /}" ] || return 0
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || { say "not installed: $missing; rows that need them will fail"; return 0; }
    say "installing: $missing"
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    if ! { apt-get install -y -q --no-install-recommends $missing ||
        { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; }; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        say "could not install: $missing; rows that need them will fail"
    fi
    # Debian starts nginx as it is installed; the benchmark runs one of its own, and nobody asked for another.
    if [[ " $missing" == *" nginx-light "* ]] && [ -d /run/systemd/system ]; then
        systemctl disable --now nginx >>"$log" 2>&1 || true
    fi
    rm -f "$log"
}

# Anything newer than the last build that succeeded?
stale() {
    [ ! -e "$stamp" ] || [ -n "$(find "$here/services" "$here/protos" "$here/tests/Benchmarks" "$here"/*.props "$here/global.json" \
        -newer "$stamp" -not -path '*/obj/*' -not -path '*/bin/*' -type f -print -quit)" ]
}

command -v dotnet >/dev/null || die "needs the .NET SDK (see global.json): https://dot.net"
install_packages

stamp=$here/artifacts/bench.stamp
if stale; then
    say "building (Release) …"
    mkdir -p "$here/artifacts"
    newest=$(mktemp) log=$(mktemp)
    if ! dotnet build "$here/tests/Benchmarks/Benchmarks.csproj" -c Release -nologo -v q >"$log" 2>&1 </dev/null; then
        grep -E 'error|warning' "$log" | sort -u | head -n 40 >&2
        die "the build failed"
    fi
    mv "$newest" "$stamp"
    rm -f "$log"
fi
PATH=$PATH:/usr/sbin:/sbin exec "$here/artifacts/bin/Benchmarks/release/vnetmesh-bench" "$@"
