"""The documents behind `crictl inspect`, `inspectp` and `info`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from runtime.v1 import api_pb2 as cri
from triptych_runtime.cgroups import Driver
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.network import NetworkResult, NetworkStatus
from triptych_runtime.network.model import Interface
from triptych_runtime.node import Node, Paths
from triptych_runtime.ociruntime import Handler, Handlers, OciRuntime
from triptych_runtime.rpc.verbose import container_info, plain, sandbox_info, status_info
from triptych_runtime.settings import Settings

POD, APP = "a" * 64, "b" * 64


def a_node(tmp_path: Path) -> Node:
    """As much of a node as the documents tell of."""
    config = cri.PodSandboxConfig(hostname="web", annotations={"note": "x"})
    config.linux.sysctls["net.core.somaxconn"] = "9"
    pod = SandboxRecord(
        id=POD,
        phase=SandboxPhase.READY,
        config=config,
        handler="",
        created_at=1,
        cgroup_parent="/kubepods/pod1",
        namespaces={"net": "/ns/net", "uts": "/ns/uts"},
    )
    app = ContainerRecord(
        id=APP,
        sandbox_id=POD,
        phase=ContainerPhase.RUNNING,
        config=cri.ContainerConfig(envs=[cri.KeyValue(key="K", value=b"v\xff")]),
        handler="crun",
        created_at=1,
        pid=77,
        monitor_pid=76,
        cgroups_path="/kubepods/pod1/b",
    )
    raw = {"net": {"routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.0.0.1"]}}}
    interface = Interface("eth0", "aa:bb", "/ns/net", addresses=("10.0.0.2/16", "fd::2/64"))
    network = SimpleNamespace(
        result=lambda _: NetworkResult(["10.0.0.2"], [interface], raw),
        status=lambda: NetworkStatus(True, networks=(("net", "/etc/cni/net.d/10.conflist"),)),
    )
    runtime = OciRuntime("crun", "/usr/bin/crun", tmp_path)
    return cast(
        Node,
        SimpleNamespace(
            settings=Settings(),
            paths=Paths(tmp_path / "root", tmp_path / "state"),
            network=network,
            handlers=Handlers({"crun": Handler("crun", runtime, version="crun 1")}, "crun"),
            cgroups=SimpleNamespace(driver=Driver.CGROUPFS, mode=SimpleNamespace(value="unified")),
            nri=SimpleNamespace(names=["10-policy"]),
            state=SimpleNamespace(
                sandboxes={POD: pod}, containers={APP: app}, containers_of=lambda _: [app]
            ),
        ),
    )


async def test_inspectp(tmp_path: Path) -> None:
    node = a_node(tmp_path)
    info: dict[str, Any] = json.loads(await sandbox_info(node, node.state.sandboxes[POD]))
    assert info["pid"] == 77
    assert (info["processStatus"], info["netNamespaceClosed"]) == ("running", False)
    # What scripts look for: the network namespace and the address.
    spaces = info["runtimeSpec"]["linux"]["namespaces"]
    assert [s["path"] for s in spaces if s["type"] == "network"] == ["/ns/net"]
    interface = info["cniResult"]["Interfaces"]["eth0"]
    assert [c["IP"] for c in interface["IPConfigs"]] == ["10.0.0.2", "fd::2"]
    assert info["cniResult"]["Routes"] == [{"dst": "0.0.0.0/0"}]
    assert info["config"]["linux"]["sysctls"] == {"net.core.somaxconn": "9"}


async def test_inspect(tmp_path: Path) -> None:
    node = a_node(tmp_path)
    record = node.state.containers[APP]
    info = json.loads(await container_info(node, record))
    assert (info["sandboxID"], info["pid"], info["removing"]) == (POD, 77, False)
    assert info["runtimeSpec"] is None
    assert info["config"]["envs"] == [{"key": "K", "value": "v\\xff"}]
    bundle = node.paths.bundle(APP)
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_bytes(b'{"hostname": "h\xff"}')
    info = json.loads(await container_info(node, record))
    assert info["runtimeSpec"]["hostname"].startswith("h")


def test_info(tmp_path: Path) -> None:
    info = status_info(a_node(tmp_path))
    cni = json.loads(info["cniconfig"])
    assert cni["Networks"] == [
        {"IFName": "eth0", "Config": {"Name": "net", "Source": "/etc/cni/net.d/10.conflist"}}
    ]
    assert cni["PluginDirs"] == ["/opt/cni/bin", "/usr/lib/cni"]
    config = json.loads(info["config"])
    assert config["defaultRuntimeHandler"] == "crun"
    assert config["runtimes"]["crun"]["path"] == "/usr/bin/crun"
    assert config["nri"]["plugins"] == ["10-policy"]
    assert json.loads(info["lastCNILoadStatus"]) == "OK"


def test_messages_as_peers_print_them() -> None:
    config = cri.ContainerConfig(command=["a", "b"], labels={"k": "v"})
    config.linux.resources.memory_limit_in_bytes = 1 << 40
    config.mounts.add(container_path="/x", propagation=cri.PROPAGATION_BIDIRECTIONAL)
    assert plain(config) == {
        "command": ["a", "b"],
        "labels": {"k": "v"},
        "linux": {"resources": {"memory_limit_in_bytes": 1 << 40}},
        "mounts": [{"container_path": "/x", "propagation": 2}],
    }
