#!/bin/sh
# make-image.sh FOLDER TASK [PROGRAM…]: FOLDER/vmlinuz and FOLDER/initramfs, to boot by `qemu-system-x86_64 -kernel … -initrd …`.
# Debian's kernel, unpacked and not installed, and this machine's busybox; TASK is run in it once eth0 is up, with the programs at hand.
set -eu
mkdir -p "$1"
folder=$(realpath "$1") task=$(realpath "$2")
shift 2
mkdir -p "$folder/root"
cd "$folder"
root=$folder/root

package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1)
[ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64: apt-get update" >&2; exit 1; }
apt-get download -q "$package" >download.log 2>&1 || { cat download.log >&2; exit 1; }
dpkg-deb -x "$package"_*.deb kernel
rm "$package"_*.deb
mv kernel/boot/vmlinuz-* vmlinuz

# A module's needs first. What is built into the kernel has no file.
take() {
    [ ! -e "$root/lib/modules/$1.ko" ] || return 0
    file=$(find kernel/lib/modules -name "$1.ko" -o -name "$1.ko.xz" | head -n 1)
    [ -n "$file" ] || return 0
    case $file in *.xz) xz -dc "$file" ;; *) cat "$file" ;; esac >"$root/lib/modules/$1.ko"
    for need in $(tr '\0' '\n' <"$root/lib/modules/$1.ko" | sed -n 's/^depends=//p' | tr ',' ' '); do take "$need"; done
    echo "$1" >>"$root/modules"
}

put() {
    cp -L "$1" "$root/bin/"
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do mkdir -p "$root/$(dirname "$library")"; cp -L "$library" "$root/$library"; done
}

for directory in bin lib/modules etc proc sys dev tmp; do mkdir -p "$root/$directory"; done
: >"$root/modules"
for module in virtio_pci virtio_net; do take "$module"; done
put "$(command -v busybox)"
for applet in $(busybox --list); do [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"; done
for program in "$@"; do put "$(command -v "$program")"; done
cp "$task" "$root/task.sh"

cat >"$root/init" <<'INIT'
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null
for module in $(cat /modules); do insmod /lib/modules/$module.ko || echo "VM: $module failed"; done
ip link set lo up; ip link set eth0 up
sh /task.sh
while :; do sleep 100; done
INIT
# What udhcpc runs. IPv4 alone: the tests ask for no more.
cat >"$root/dhcp.sh" <<'DHCP'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
DHCP
chmod +x "$root/init" "$root/dhcp.sh"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >initramfs
