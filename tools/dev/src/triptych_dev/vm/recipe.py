"""What the node of `./dev test node` is made of: Debian 12, systemd, cgroup v2, and nothing else.

The image is cached under a hash of this recipe, so a change here makes a new one.
"""

from __future__ import annotations

import hashlib
import json

SUITE = "bookworm"

PACKAGES = (
    "apparmor",
    "bash",
    "busybox-static",
    "ca-certificates",
    "catatonit",
    "conmon",
    "containernetworking-plugins",
    "criu",
    "crun",
    "dbus",
    "docker-registry",
    "e2fsprogs",
    "golang-github-containers-common",
    "iproute2",
    "iptables",
    "kmod",
    "linux-image-cloud-amd64",
    "mount",
    "nftables",
    "procps",
    "python3",
    "python3-venv",
    "runc",
    "systemd",
    "systemd-sysv",
    "tar",
    "udev",
    "util-linux",
    "xfsprogs",
)

INITRAMFS = {
    "/etc/initramfs-tools/conf.d/triptych.conf": "MODULES=list\nCOMPRESS=lz4\n",
    "/etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
}

RUNNER = "/usr/local/sbin/node-job"

FILES = {
    "/etc/hostname": "triptych-node\n",
    "/etc/hosts": "127.0.0.1 localhost triptych-node\n::1 localhost\n",
    "/etc/fstab": "",
    # Mask what waits for hardware that is not there, or runs by the clock.
    "/etc/systemd/system/node-job.service": f"""\
[Unit]
Description=The job that the host gave this node
After=multi-user.target systemd-modules-load.service dbus.service apparmor.service
Wants=dbus.service

[Service]
Type=oneshot
ExecStart={RUNNER}
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity
# Processes that a job leaves must not keep the node from going down.
TimeoutStopSec=20

[Install]
WantedBy=multi-user.target
""",
    RUNNER: """\
#!/bin/bash
# Runs the job on the second disk; its files and exit status go to the third one as a tar archive.
# A job that ends with status 194 wants the node rebooted and itself run again, with STAGE one higher.
set -u
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
export STAGE=$(cat /var/lib/triptych-node/stage 2>/dev/null || echo 0) RESULTS=/var/lib/triptych-node/results
mkdir -p "$RESULTS" /payload
mount /dev/vdb /payload || exit 1
checkout=$(cat /payload/checkout.path)
mkdir -p "$checkout"
mount --bind /payload/checkout "$checkout"
cd "$checkout" || exit 1
echo "node: $(uname -r), systemd $(systemctl --version | sed -n 1s/systemd.//p), stage $STAGE"
bash /payload/job.sh
status=$?
cd /
if [ $status -eq 194 ]; then
    echo $((STAGE + 1)) >/var/lib/triptych-node/stage
    sync
    systemctl --no-block reboot
    exit 0
fi
echo $status >"$RESULTS/status"
journalctl -b --no-pager >"$RESULTS/journal.txt" 2>/dev/null
dmesg >"$RESULTS/dmesg.txt" 2>/dev/null
tar -C "$RESULTS" -cf /dev/vdc .
sync
systemctl --no-block poweroff
""",
}

EXECUTABLE = frozenset({RUNNER})

SETUP = """\
set -eu
systemctl enable node-job.service
systemctl disable docker-registry.service apt-daily.timer apt-daily-upgrade.timer
systemctl disable fstrim.timer e2scrub_all.timer
systemctl mask getty@tty1.service serial-getty@ttyS0.service systemd-networkd-wait-online.service
systemctl set-default multi-user.target
update-initramfs -u
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*
"""
"""Run by a shell inside the new root directory."""

SIZE_MIB = 4096
RESULTS_MIB = 256


def key() -> str:
    """Names the image that this recipe makes."""
    parts = [SUITE, PACKAGES, INITRAMFS, FILES, SETUP, SIZE_MIB]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
