#!/usr/bin/busybox sh
# Second stage of a host: what an init system would set up, as far as libvirt needs it, then the agent.
. /lab/settings
export PATH=/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8 TERM=dumb PYTHONPATH=/opt/vgicmgr

mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /tmp
mkdir -p /run/lock /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "$NAME" >/proc/sys/kernel/hostname
echo "$NAME" >/etc/hostname
printf '127.0.0.1 localhost\n%b' "$HOSTS" >/etc/hosts
echo "host_uuid = \"$UUID\"" >>/etc/libvirt/libvirtd.conf
ip link set lo up
if [ -n "$ADDRESS" ]; then
    ip link set eth0 up
    ip address add "$ADDRESS/24" dev eth0
fi
/usr/sbin/depmod -a 2>/dev/null # by its path, since busybox prefers its own, which modprobe cannot use

# A shell on the console for whoever presses Enter there.
(while read -r _; do setsid cttyhack busybox sh -l; done) </dev/ttyAMA0 >/dev/ttyAMA0 2>&1 &

while :; do
    python3 -B /lab/agent.py
    echo "lab: the agent ended" >/dev/console
    sleep 1
done
