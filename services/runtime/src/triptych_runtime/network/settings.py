"""Settings of the pod network: the table `[network]` of runtime.toml."""

from __future__ import annotations

import msgspec


class NetworkSettings(msgspec.Struct, frozen=True):
    """Where CNI configuration and plugins are, and how long plugins may take."""

    conf_dirs: tuple[str, ...] = ("/etc/cni/net.d",)
    bin_dirs: tuple[str, ...] = ("/opt/cni/bin", "/usr/lib/cni")
    cache_dir: str = "/var/lib/triptych/runtime/network"
    max_conf_num: int = 1
    conf_template: str = ""
    ip_preference: str = "ipv4"
    setup_deadline: float = 60.0
    teardown_deadline: float = 60.0
    query_deadline: float = 10.0
    parallel: int = 0
    idle_plugins: tuple[str, ...] = ("portmap", "bandwidth")
