# What the VM of the tests does by itself; it says on the console what came of it.
udhcpc -i eth0 -n -q -t 10 -T 1 -s /dhcp.sh >/dev/null 2>&1 || echo "VM: no lease"
echo "VM: address $(ip -4 -o addr show dev eth0 | sed 's/.*inet \([0-9.]*\).*/\1/')"
nslookup web.wan.test 2>/dev/null | grep -q 192.0.2.1 && echo "VM: resolved"
echo "VM: hash $(wget -q -O - http://web.wan.test/bytes/2000000 | sha256sum)"
echo "VM: done"
