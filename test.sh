#!/usr/bin/env bash
# Installs what the tests need, builds everything (Release, warnings are errors), runs every test project.
# Usage: ./test.sh [PROJECT…]     e.g. ./test.sh Switch EndToEnd; without arguments: all.
# A test that fails is run once more, alone; the output names those that pass then.
# Ends with "N passed, N failed[, N skipped]"; the exit code is zero only when tests ran and none failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 TESTINGPLATFORM_TELEMETRY_OPTOUT=1

unit_limit=300 end_to_end_limit=840   # seconds for a project; what takes longer hangs, and fails
results=artifacts/test-results
started=$SECONDS

say() { printf '%s\n' "$*"; }
die() { say "test.sh: $*" >&2; exit 1; }

# The Debian packages that the tests need, each by a program (or library) that shows whether it is there.
needed_packages() {
    local pair
    for pair in ip:iproute2 tc:iproute2 ping:iputils-ping busybox:busybox udhcpc:udhcpc dhclient:isc-dhcp-client curl:curl socat:socat dig:bind9-dnsutils \
                nft:nftables iptables:iptables iperf3:iperf3 dnsmasq:dnsmasq-base setpriv:util-linux nsenter:util-linux gcc:gcc sysctl:procps tshark:tshark qemu-system-x86_64:qemu-system-x86 \
                dockerd:docker.io docker-compose:docker-compose debootstrap:debootstrap prometheus:prometheus promtool:prometheus; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
    /sbin/ldconfig -p | grep -q 'libpcap\.so' || echo libpcap0.8
    # For the example client of Attach, which runs on the system's own Python.
    [ -d /usr/lib/python3/dist-packages/grpc ] || echo python3-grpcio
    [ -d /usr/lib/python3/dist-packages/grpc_tools ] || echo python3-grpc-tools
    python3 -c 'import jsonschema, yaml' 2>/dev/null || echo python3-jsonschema python3-yaml
    # gcc alone compiles nothing without the C library's headers.
    [ -e /usr/include/stdio.h ] || echo libc6-dev
}

install_packages() {
    local missing log=$results/apt.log
    missing=$(needed_packages | sort -u | tr '\n' ' ')
    [ -n "${missing// /}" ] || return 0
    command -v apt-get >/dev/null || { say "not installed, and this is no Debian: $missing; tests that need them skip themselves"; return 0; }
    say "installing: $missing"
    export DEBIAN_FRONTEND=noninteractive
    # Daemons that come with packages (dockerd) are not started: tests run their own.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    # shellcheck disable=SC2086
    if ! apt-get install -y -q --no-install-recommends $missing >"$log" 2>&1; then
        apt-get update -q >>"$log" 2>&1
        # shellcheck disable=SC2086
        apt-get install -y -q --no-install-recommends $missing >>"$log" 2>&1 || { tail -n 20 "$log"; die "cannot install: $missing"; }
    fi
    # Nor at the next start of the machine.
    [[ " $missing " != *" prometheus "* ]] || systemctl disable --quiet prometheus.service 2>/dev/null || true
}

# Runs one project's tests: its output to a file, its counts to an XML file; a hang is ended and tells what ran.
run_project() {
    local name=$1 limit=$2 folder=$results/$1 begun=$SECONDS code
    local -a options=(-noColor -noLogo -verbose -xml "$folder/results.xml")
    mkdir -p "$folder"
    # With it, the output of a project that hangs says which tests were under way.
    [ "$name" = EndToEnd ] && options+=(-longRunning 120)
    timeout --kill-after=20 --signal=TERM "$limit" "artifacts/bin/$name.Tests/release/$name.Tests" "${options[@]}" >"$folder/output.txt" 2>&1 </dev/null
    code=$?
    echo "$code $((SECONDS - begun))" >"$folder/code"
}

attribute() { sed -n "s/.*<assembly [^>]*[ ]$1=\"\([0-9]*\)\".*/\1/p" "$2" | head -n 1; }

# Runs the failed tests of a project once more, alone, and names those that pass then: real clocks, processes and devices on a
# machine that others use as well. More than three at once are no accident.
again_alone() {
    local name=$1 xml=$results/$1/results.xml count test
    local -a tests
    mapfile -t tests < <(grep -o '<test [^>]*result="Fail"[^>]*' "$xml" | sed -E 's/.* type="([^"]*)" method="([^"]*)".*/\1.\2/' | sort | uniq -c)
    [ "${#tests[@]}" -le 3 ] || return 0
    for test in "${tests[@]}"; do
        read -r count test <<<"$test"
        timeout --kill-after=20 --signal=TERM 180 "artifacts/bin/$name.Tests/release/$name.Tests" -noColor -noLogo -method "$test" >>"$results/$name/again.txt" 2>&1 </dev/null && echo "$count $test"
    done
}

# Says how a project went and adds it to the totals.
report() {
    local name=$1 folder=$results/$1 code=1 seconds=0 ran=0 ok=0 bad=0 skip=0 errors=0 xml count test
    xml=$folder/results.xml
    [ -f "$folder/code" ] && read -r code seconds <"$folder/code"
    if [ -f "$xml" ]; then
        ok=$(attribute passed "$xml"); bad=$(attribute failed "$xml"); skip=$(attribute skipped "$xml"); errors=$(attribute errors "$xml")
        ok=${ok:-0} bad=${bad:-0} skip=${skip:-0} errors=${errors:-0}
    fi
    ran=$((ok + bad))
    # Whatever went wrong outside of a test counts as a failure: a crash, a hang, an error of clean-up.
    bad=$((bad + errors))
    [ "$code" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%-12s %4d passed, %d failed, %d skipped  (%d s)\n' "$name" "$ok" "$bad" "$skip" "$seconds"
    if [ "$bad" -gt 0 ]; then
        [ "$code" -ge 124 ] && say "  ended after its time limit; the end of its output says what ran"
        if [ "$ran" -eq 0 ] || [ "$code" -ge 124 ]; then
            tail -n 80 "$folder/output.txt"
        else
            # The failures, without the frames of the stack that are not ours; all of it stands in the file.
            awk '/^    [^ ].*\[(PASS|SKIP|STARTING|FINISHED|OUTPUT)\]/ { show = 0 } /^    [^ ].*\[FAIL\]/ { show = 1 } show' "$folder/output.txt" |
                grep -v -E '^ *$|^ +at (System|Microsoft|Grpc|Xunit|InvokeStub|.*\.MoveNext)|--- End of stack' | cut -c 1-400 | head -n 250
        fi
        if [ "$code" -lt 124 ] && [ "$errors" -eq 0 ]; then
            while read -r count test; do
                say "  passed when run again, alone: $test"
                passed=$((passed + count)) failed=$((failed - count)) unsteady=$((unsteady + count))
            done < <(again_alone "$name")
        fi
    elif [ "$skip" -gt 0 ]; then
        grep -o '<reason>[^<]*' "$xml" | sort | uniq -c | sort -rn | head -n 5 | sed -E 's/^ *([0-9]+) <reason>/  skipped \1: /'
    fi
}

command -v dotnet >/dev/null || die "needs the .NET SDK (see global.json): https://dot.net"
rm -rf "$results"; mkdir -p "$results"
if [ "$(id -u)" -eq 0 ]; then
    install_packages
    # Made while the rest is built; the compose test waits for it. Not a job of this shell: those are counted below.
    [ $# -gt 0 ] && [[ " $* " != *" EndToEnd "* ]] ||
        (tests/EndToEnd/Compose/base-image.sh artifacts/compose/debian.tar >"$results/base-image.log" 2>&1 </dev/null &)
else
    say "not root: nothing is installed, and tests that make namespaces and devices skip themselves"
fi

say "building (Release) …"
build_log=$results/build.log
if ! dotnet build VNetMesh.sln -c Release -nologo -v q -clp:NoSummary -warnaserror >"$build_log" 2>&1 </dev/null; then
    grep -E 'error|warning' "$build_log" | sort -u | head -n 40
    [ -s "$build_log" ] || say "the build said nothing"
    tail -n 5 "$build_log"
    say "0 passed, 1 failed"
    exit 1
fi
say "built in $((SECONDS - started)) s"

units=() end_to_end=()
for project in tests/*/*.Tests.csproj; do
    name=$(basename "$project" .Tests.csproj)
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    if [ "$name" = EndToEnd ]; then end_to_end+=("$name"); else units+=("$name"); fi
done

passed=0 failed=0 skipped=0 unsteady=0
# Two at a time: they are short, and mostly of one core each.
for name in "${units[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    run_project "$name" "$unit_limit" &
done
wait
for name in "${units[@]}"; do report "$name"; done
# Alone: it measures times.
for name in "${end_to_end[@]}"; do
    run_project "$name" "$end_to_end_limit"
    report "$name"
done

say "in $((SECONDS - started)) s; outputs are in $results"
[ "$unsteady" -eq 0 ] || say "$unsteady of those that passed failed at first: see above"
summary="$passed passed, $failed failed"
[ "$skipped" -gt 0 ] && summary+=", $skipped skipped"
say "$summary"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
