"""The text of the default profile (apparmor.d(5)).

What it is for: a container may do what its capabilities, namespaces and seccomp filter let it, but not
mount, not write the kernel's knobs in /proc and /sys, and not trace or signal what is outside its own
profile. It is the second wall behind masked and read-only paths.
"""

from __future__ import annotations

NAME = "triptych-default"

#: What /proc/sys subtrees a container may write: those of its own namespaces.
_OWN_SYSCTLS = ("net", "kernel/shm*", "kernel/msg*", "kernel/sem", "fs/mqueue")

#: Below /sys, what nobody in a container may write; /sys/fs/cgroup is handled by its mount.
_SYS_DENIED = ("firmware", "kernel/security", "kernel/debug", "kernel/tracing", "devices/virtual/powercap")


def text(name: str = NAME, daemon: str = "unconfined") -> str:
    """The profile.

    :param name: of the profile, and of the peers that it may trace and signal.
    :param daemon: label of the runtime daemon, whose signals must reach containers.
    """
    denied = [f"  deny /sys/{path}/** rwklx," for path in _SYS_DENIED]
    return "\n".join(
        [
            "abi <abi/3.0>,",
            "",
            f"profile {name} flags=(attach_disconnected,mediate_deleted) {{",
            "  file,",
            "  network,",
            "  capability,",
            "  umount,",
            "  unix,",
            "  dbus,",
            "",
            "  # Signals come from the runtime, its monitors, and the container itself.",
            f"  signal (receive) peer={daemon},",
            "  signal (receive) peer=crun,",
            "  signal (receive) peer=runc,",
            f"  signal (send, receive) peer={name},",
            "",
            "  deny mount,",
            "  deny pivot_root,",
            "",
            *_proc_rules(),
            *denied,
            "",
            "  # Debuggers inside a container see the container.",
            f"  ptrace (trace, read, tracedby, readby) peer={name},",
            "}",
            "",
        ]
    )


def _proc_rules() -> list[str]:
    rules = [
        "  # The files of processes stay writable, the node's do not.",
        "  deny /proc/sysrq-trigger rwklx,",
        "  deny /proc/kcore rwklx,",
        "  deny /proc/kmem rwklx,",
        "  deny /proc/mem rwklx,",
        "  deny /proc/acpi/** rwklx,",
        "  deny /proc/{bus,fs,irq,scsi,timer_stats,latency_stats}/** wklx,",
        "  deny /proc/sys/[^fkn]*/** wklx,",
        "  deny /proc/sys/f[^s]*/** wklx,",
        "  deny /proc/sys/fs/[^m]** wklx,",
        "  deny /proc/sys/kernel/{?,??,[^sm]?**} wklx,",
        "  deny /proc/sys/kernel/s[^he]** wklx,",
        "  deny /proc/sys/kernel/m[^s]** wklx,",
    ]
    return [*rules, f"  # What remains: /proc/sys/{{{','.join(_OWN_SYSCTLS)}}}."]
