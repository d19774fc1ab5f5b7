#!/usr/bin/env bash
# A small Debian for the compose test's stand-ins of base images: base-image.sh FILE.tar
# From the mirror that apt is configured with. Nothing is done while the file is there and made of the same packages.
set -euo pipefail
file=$1
# What the agent's image needs is in it already: in the build there is no network to install it from. (tcpdump brings libpcap, whose own package is not called the same in each release.)
packages=busybox,ca-certificates,curl,iproute2,iputils-ping,mount,nftables,tcpdump,udhcpc,util-linux

die() { echo "base-image.sh: $*" >&2; exit 1; }

release=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME") || die "this is no Debian"
mkdir -p "$(dirname "$file")"
exec 9>"$file.lock"
flock 9
[ -e "$file" ] && [ "$(cat "$file.packages" 2>/dev/null)" = "$release $packages" ] && exit 0
# deb.debian.org or whatever stands there in its place; not the one of security updates, which has not all packages.
mirror=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' | awk -v release="$release" '$1 == release && $2 == "main" { print $3; exit }')
[ -n "$mirror" ] || die "apt has no source for $release main"
root=$(mktemp -d /var/tmp/vnetmesh-base.XXXXXX)
# debootstrap has /proc mounted in there, and unmounts it unless it is ended.
trap 'umount -l "$root/proc" "$root/sys" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
debootstrap --variant=minbase --include="$packages" "$release" "$root" "$mirror" >"$file.log" 2>&1 || die "debootstrap: $(tail -n 1 "$file.log")"
tar -c -C "$root" --exclude=./var/cache/apt --exclude=./var/lib/apt/lists --exclude=./usr/share/doc --exclude=./usr/share/locale --exclude=./usr/share/man -f "$file.new" .
mv "$file.new" "$file"
echo "$release $packages" >"$file.packages"
