"""Names of sysctls and the namespaces that they belong to."""

from __future__ import annotations

import pytest
from triptych_linux import sysctl
from triptych_linux.namespaces import Namespace


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
    ],
)
def test_dots_and_slashes(name: str, path: str) -> None:
    assert sysctl.key(name) == path


@pytest.mark.parametrize(
    "name", ["", "net", "net.", ".net", "net..a", "net/../kernel", "a b.c", "net/./x", "/x/y"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a sysctl"):
        sysctl.key(name)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("net/ipv4/ip_forward", Namespace.NETWORK),
        ("kernel/shmmax", Namespace.IPC),
        ("kernel/msgmnb", Namespace.IPC),
        ("kernel/sem", Namespace.IPC),
        ("fs/mqueue/msg_max", Namespace.IPC),
        ("kernel/domainname", Namespace.UTS),
        ("kernel/pid_max", None),
        ("vm/swappiness", None),
        ("kernel/shm_next_id", None),
    ],
)
def test_namespaces(path: str, kind: Namespace | None) -> None:
    assert sysctl.namespace_of(path) is kind


def test_interfaces() -> None:
    assert sysctl.interface_of("net/ipv4/conf/eth0.100/forwarding") == "eth0.100"
    assert sysctl.interface_of("net/ipv6/neigh/net1/gc_stale_time") == "net1"
    for path in ("net/ipv4/conf/all/forwarding", "net/ipv4/conf/lo/forwarding", "net/ipv4/ip_forward"):
        assert sysctl.interface_of(path) is None
