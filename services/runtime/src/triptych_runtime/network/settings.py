"""Settings of the pod network: the table `[network]` of runtime.toml."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from triptych_service import Reload, Table, setting

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class IpPreference(enum.Enum):
    """Which address of a pod is its primary one."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    CNI = "cni"


class NetworkSettings(Table):
    """`[network]`"""

    conf_dirs: tuple[str, ...] = setting(
        ("/etc/cni/net.d",),
        "Directories of CNI configuration, in order; the files of each are taken by name.",
    )
    bin_dirs: tuple[str, ...] = setting(
        ("/opt/cni/bin", "/usr/lib/cni"), "Directories of CNI plugins, the first ones first."
    )
    cache_dir: str = setting(
        "",
        "Directory of what is known of attached pods, on disk, so that addresses are given back after a "
        "reboot; empty means `ROOT/network`.",
    )
    max_conf_num: Annotated[int, msgspec.Meta(ge=0)] = setting(
        1,
        "How many networks a pod is attached to at most (`eth0`, `eth1`, ...); 0 for all that there are.",
    )
    conf_template: str = setting(
        "",
        "A CNI configuration list with `${POD_CIDR...}` in it that is used, once the kubelet told the pod "
        "CIDR, while `conf_dirs` hold no configuration; see docs/network.md.",
    )
    ip_preference: IpPreference = setting(
        IpPreference.IPV4,
        "Primary address of a pod with several: `ipv4` or `ipv6` first, or `cni`: the plugins' order.",
    )
    setup_deadline: Seconds = setting(
        60.0, "Seconds that one plugin may take to attach a pod before it is killed.", reload=Reload.LIVE
    )
    teardown_deadline: Seconds = setting(
        60.0, "Seconds that one plugin may take to detach a pod.", reload=Reload.LIVE
    )
    query_deadline: Seconds = setting(
        10.0, "Seconds that one plugin may take for VERSION, STATUS, CHECK and GC.", reload=Reload.LIVE
    )
    retry_seconds: Seconds = setting(
        5.0,
        "Seconds until a failed detachment is tried again in the background; doubles up to 5 minutes. What "
        "keeps the network from being ready is looked at again likewise, once a minute at least.",
        reload=Reload.LIVE,
    )
    parallel: Annotated[int, msgspec.Meta(ge=0)] = setting(
        0, "How many plugins run at once, at most; 0 means 4 for each CPU and at least 8."
    )
    idle_plugins: tuple[str, ...] = setting(
        ("portmap", "bandwidth"),
        "Plugins that do nothing for a pod without their capability argument, which are then not run.",
        reload=Reload.LIVE,
    )
