# What the VM of the benchmarks does: an address by DHCP, then what it is told on its console.
udhcpc -i eth0 -n -q -t 10 -T 1 -s /dhcp.sh >/dev/null 2>&1 || echo "VM: no lease"
stty -echo 2>/dev/null
echo "VM: done"
while read -r line; do eval "$line"; done
