#!/bin/busybox sh
# A guest's only process: says that it is there, answers the power button, and idles.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/$module"; done </modules
echo "guest: up"
# The virt machine's power button (a GPIO key) is the only input device there is.
(for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/input/event0 ] || sleep 0.2; done
 [ -e /dev/input/event0 ] && head -c 24 /dev/input/event0 >/dev/null && echo "guest: down" && poweroff -f) &
count=0
while sleep 1; do count=$((count + 1)); echo "guest: $count s"; done
