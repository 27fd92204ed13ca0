"""AppArmor with a kernel that has it: who runs under which profile, and what that forbids."""

from __future__ import annotations

import asyncio
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev import streamclient
from triptych_dev.vm.inside import Node

Profile: Any = cri.SecurityProfile

LOCAL = "triptych-node-test"
LOCAL_TEXT = f"""\
profile {LOCAL} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  umount,
  mount,
  signal,
  unix,
  deny /www/** w,
}}
"""
CURRENT = ("cat", "/proc/self/attr/current")
MOUNT = "mkdir -p /m && mount -t tmpfs none /m && echo mounted || echo refused"
WRITE = "echo x > /www/new && echo written || echo refused"


@pytest.fixture
def local_profile() -> Iterator[str]:
    """A profile that the node's owner has loaded."""
    parser = ["apparmor_parser", "--skip-cache"]
    subprocess.run([*parser, "--replace"], input=LOCAL_TEXT, text=True, check=True)
    yield LOCAL
    subprocess.run([*parser, "--remove"], input=LOCAL_TEXT, text=True, check=True)


def confine(config: cri.ContainerConfig, kind: Any, local: str = "") -> None:
    """All that AppArmor could forbid is permitted by everything else."""
    context = config.linux.security_context
    context.apparmor.profile_type = kind
    context.apparmor.localhost_ref = local
    context.seccomp.profile_type = Profile.Unconfined
    context.capabilities.add_capabilities.append("SYS_ADMIN")


@pytest.mark.parametrize(
    ("kind", "label", "mounted", "written"),
    [
        (Profile.RuntimeDefault, "triptych-default (enforce)", "refused", "written"),
        (Profile.Localhost, f"{LOCAL} (enforce)", "mounted", "refused"),
        (Profile.Unconfined, "unconfined", "mounted", "written"),
    ],
    ids=["RuntimeDefault", "Localhost", "Unconfined"],
)
@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_profile(
    handler: str, kind: Any, label: str, mounted: str, written: str, node: Node, local_profile: str
) -> None:
    """The container, an ExecSync and a streamed exec run under it; it forbids what it names."""
    sandbox = node.run_pod("confined", handler=handler)
    try:
        local = local_profile if kind == Profile.Localhost else ""
        change = functools.partial(confine, kind=kind, local=local)
        container = node.run_container(sandbox, "main", change=change)
        assert Path(f"/proc/{node.pid(container)}/attr/current").read_text().strip() == label
        assert node.exec(container, *CURRENT).strip() == label
        assert node.exec(container, "sh", "-c", MOUNT).split()[-1] == mounted
        assert node.exec(container, "sh", "-c", WRITE).split()[-1] == written
        request = cri.ExecRequest(container_id=container, cmd=CURRENT, stdout=True)
        result = asyncio.run(streamclient.exec_spdy(node.call("Exec", request).url))
        assert result.stdout.decode().strip() == label
    finally:
        node.remove_pod(sandbox[0])


def test_without_a_word_the_default_profile_is_taken(node: Node) -> None:
    sandbox = node.run_pod("plain")
    try:
        container = node.run_container(sandbox, "main")
        assert node.exec(container, *CURRENT).strip() == "triptych-default (enforce)"
    finally:
        node.remove_pod(sandbox[0])


def test_privileged_is_unconfined(node: Node) -> None:
    def privileged(config: cri.ContainerConfig) -> None:
        config.linux.security_context.privileged = True

    def pod(config: cri.PodSandboxConfig) -> None:
        config.linux.security_context.privileged = True

    sandbox = node.run_pod("privileged", pod)
    try:
        container = node.run_container(sandbox, "main", change=privileged)
        assert node.exec(container, *CURRENT).strip() == "unconfined"
    finally:
        node.remove_pod(sandbox[0])


def test_a_profile_that_is_not_loaded_is_refused(node: Node) -> None:
    sandbox = node.run_pod("refused")
    try:
        change = functools.partial(confine, kind=Profile.Localhost, local="not-there")
        with pytest.raises(grpc.RpcError) as caught:
            node.run_container(sandbox, "main", change=change)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "not-there" in (caught.value.details() or "")
    finally:
        node.remove_pod(sandbox[0])
