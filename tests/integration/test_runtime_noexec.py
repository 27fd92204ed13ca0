"""A node whose /run is mounted noexec, nosuid and nodev, as hardening guides want it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import Driver

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, live_image: str) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("noexec") / "stack", f"tnox{os.getpid()}", "10.88.0.0/16")
    made.state.mkdir()
    options = ["-o", "noexec,nosuid,nodev,size=64m"]
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(made.state)], check=True)
    made.write_configuration()
    with made.serving(live_image, "image", "runtime"):
        yield made


def map_users(config: cri.PodSandboxConfig) -> None:
    """Give the pod a user namespace of its own."""
    users = config.linux.security_context.namespace_options.userns_options
    users.mode = cri.POD
    for mappings in (users.uids, users.gids):
        mappings.add(container_id=0, host_id=200_000, length=65_536)


@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "mapped"])
@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_environment_values_of_any_bytes(stack: Stack, live_image: str, handler: str, mapped: bool) -> None:
    with stack.runtime() as stub:
        driver = Driver(stub, live_image, handler)
        config = pod_config("bytes")
        options = config.linux.security_context.namespace_options
        options.pid = cri.POD
        if mapped:
            map_users(config)
        pod = driver.run(config)
        app = driver.config("app")
        app.envs.add(key="BYTES", value=b"\xff\xfe")
        app.linux.security_context.namespace_options.CopyFrom(options)
        container = driver.launch(pod, app)
        shown = driver.output(container, "sh", "-c", 'printf %s "$BYTES" | od -An -tx1')
        assert shown.split() == ["ff", "fe"]
        driver.clear()
    mounts = Path("/proc/self/mounts").read_text()
    assert f"{stack.state}/runtime/containers" not in mounts


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_a_read_only_root_in_a_user_namespace(stack: Stack, live_image: str, handler: str) -> None:
    with stack.runtime() as stub:
        driver = Driver(stub, live_image, handler)
        config = pod_config("fixed")
        map_users(config)
        pod = driver.run(config)
        app = driver.config("app")
        context = app.linux.security_context
        context.namespace_options.CopyFrom(config.linux.security_context.namespace_options)
        context.readonly_rootfs = True
        container = driver.launch(pod, app)
        for path in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
            line = driver.output(container, "sh", "-c", f"grep ' {path} ' /proc/mounts")
            assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split()[3].split(",")), line
        driver.clear()
