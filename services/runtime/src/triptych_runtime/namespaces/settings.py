"""Settings of pod namespaces."""

from __future__ import annotations

import msgspec


class NamespaceSettings(msgspec.Struct, frozen=True):
    """Defaults that pods get in their own network namespace, as containerd gives them."""

    unprivileged_ports: bool = True
    unprivileged_icmp: bool = True
    init: str = "/usr/bin/catatonit"
    deadline: float = 10.0
