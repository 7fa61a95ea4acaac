#!/bin/busybox sh
# What a guest does: mount, load modules, run the tests that are named in /weir/plan, say a verdict, end.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/weir/applets HOME=/root TMPDIR=/tmp RUST_BACKTRACE=0 WEIR_TEST_PATIENCE=4
/bin/busybox mkdir -p /proc /sys /dev /run/netns /tmp /root /var /weir/applets
/bin/busybox --install -s /weir/applets
# Another machine's instructions take three times as long to emulate as one's own.
[ "$(uname -m)" = aarch64 ] && export WEIR_TEST_PATIENCE=12
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /run/netns
ln -s /run /var/run
for module in /weir/modules/*; do
    # Tests make its modems themselves.
    case $module in *-wwan_hwsim.ko) words=devices=0 ;; *) words= ;; esac
    insmod "$module" $words || echo "weir-vm: cannot load $module"
done
[ -d /sys/kernel/config ] && mount -t configfs config /sys/kernel/config
[ -d /sys/kernel/debug ] && mount -t debugfs debug /sys/kernel/debug
ip link set lo up
echo "weir-vm: up $(uname -r) $(uname -m)"
failed=0
. /weir/plan
if dmesg | grep -E 'BUG:|WARNING:|Oops|rcu.*stall|soft lockup'; then
    dmesg | tail -n 60
    echo "weir-vm: the kernel complains"
    failed=1
fi
echo "weir-vm: verdict $failed"
reboot -f
