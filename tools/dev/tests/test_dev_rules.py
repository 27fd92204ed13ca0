"""Which packet rules an uninstall takes away."""

from __future__ import annotations

from triptych_dev.node.rules import removals

EMPTY = """\
-P PREROUTING ACCEPT
-P POSTROUTING ACCEPT
-N CNI-HOSTPORT-DNAT
-N CNI-HOSTPORT-MASQ
-N KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
"""
IN_USE = EMPTY + "-N CNI-DN-0123456789abcdef\n"


def test_entry_points_without_ports_go_and_nothing_else() -> None:
    assert removals(EMPTY) == [
        ["-D", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "CNI-HOSTPORT-DNAT"],
        [
            *("-D", "POSTROUTING", "-m", "comment", "--comment", "CNI portfwd requiring masquerade"),
            *("-j", "CNI-HOSTPORT-MASQ"),
        ],
        ["-F", "CNI-HOSTPORT-DNAT"],
        ["-F", "CNI-HOSTPORT-MASQ"],
        ["-X", "CNI-HOSTPORT-DNAT"],
        ["-X", "CNI-HOSTPORT-MASQ"],
    ]


def test_a_port_of_any_pod_keeps_them() -> None:
    assert removals(IN_USE) == []


def test_nothing_is_there() -> None:
    assert removals("") == []
