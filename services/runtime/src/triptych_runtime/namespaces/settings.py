"""Settings of pod namespaces."""

from __future__ import annotations

import msgspec


class NamespaceSettings(msgspec.Struct, frozen=True):
    """Defaults that pods get in their own network namespace, as containerd gives them; and how inits start.

    :param init: the static program of an init.
    :param deadline: seconds for each thing that is made or ended here.
    :param place_deadline: seconds until an init is in its cgroup. A slow systemd takes 10 to answer and 5 to
        do it.
    """

    unprivileged_ports: bool = True
    unprivileged_icmp: bool = True
    init: str = "/usr/bin/catatonit"
    deadline: float = 10.0
    place_deadline: float = 20.0
