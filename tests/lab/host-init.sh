#!/bin/busybox sh
# First stage of a host: finds the root disk and hands over to host-main.sh on it.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/$module"; done </modules

# By serial number: the order in which disks appear is no promise.
disk() {
    tries=0
    while [ $tries -lt 200 ]; do
        for serial in /sys/block/vd*/serial; do
            [ "$(cat "$serial" 2>/dev/null)" = "$1" ] && basename "$(dirname "$serial")" && return
        done
        sleep 0.05
        tries=$((tries + 1))
    done
    echo "lab: no disk $1" >/dev/console
    return 1
}

mount -t ext4 "/dev/$(disk root)" /newroot || exit 1
mount -t ext4 -o ro "/dev/$(disk guest)" /newroot/srv/guest || exit 1
mkdir -p /newroot/lib/modules
cp -a /lib/modules/. /newroot/lib/modules/
cp -a /lab/. /newroot/lab/
mount --move /dev /newroot/dev
mount --move /proc /newroot/proc
mount --move /sys /newroot/sys
exec switch_root /newroot /lab/init
