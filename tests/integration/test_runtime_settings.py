"""A stack with settings of its own, whose image daemon may be stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from grpc import StatusCode
from runtime.v1 import api_pb2 as cri
from triptych.rootfs.v1 import rootfs_pb2
from triptych_dev.kubelet import pod_config
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, Driver, refused, wait_until
from triptych_dev.testing.ocicontainer import CRUN

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

NOWHERE = "f" * 64


@pytest.fixture(scope="module")
def lone_stack(tmp_path_factory: pytest.TempPathFactory, live_image: str) -> Iterator[Stack]:
    """A stack of its own, with unusual settings, whose image daemon may be stopped."""
    root = tmp_path_factory.mktemp("lone")
    overrides: dict[str, Any] = {
        "handlers": {
            "late": {"path": str(root / "late")},
            "crun": {"annotations": ["note.*"], "privileged_host_devices": False},
            "mine": {"path": "crun"},
            "off": {"path": "crun", "enabled": False},
        },
        "containers": {"restrict_oom_score_adj": False, "device_ownership": True},
    }
    made = Stack(root / "stack", f"tl{root.stat().st_ino % 100000}", "10.92.0.0/16", {"runtime": overrides})
    made.write_configuration()
    with made.serving(live_image, "image", "runtime"):
        yield made


def test_without_the_image_daemon(lone_stack: Stack, live_image: str) -> None:
    with lone_stack.runtime() as stub:
        driver = Driver(stub, live_image)
        pod = driver.run("alone")
        container = driver.launch(pod, "app")
        lone_stack.stop("image")
        with refused(StatusCode.UNAVAILABLE) as refusal:
            driver.create(pod, "late")
        assert "triptych-image" in refusal.text
        assert lone_stack.socket("image") in refusal.text
        assert driver.output(container, "echo", "on") == "on\n"
        stub.ListContainerStats(cri.ListContainerStatsRequest(), timeout=5 * PATIENCE)
        driver.stop(container)
        # A removal waits for a daemon that is being restarted.
        remover = threading.Thread(target=lambda: driver.remove(container))
        remover.start()
        time.sleep(0.5)
        assert remover.is_alive()
        lone_stack.start("image")
        remover.join(20)
        listed = stub.ListContainers(cri.ListContainersRequest(), timeout=5 * PATIENCE).containers
        assert container not in [c.id for c in listed]
        driver.create(pod, "late")
        driver.clear()
    assert not list((lone_stack.root / "image" / "rootfs").glob("*"))


def test_a_root_filesystem_that_nobody_owns_is_removed(lone_stack: Stack, live_image: str) -> None:
    """What a create leaves that is undone while the image daemon is away goes when that is back."""
    rootfs = lone_stack.root / "image" / "rootfs"
    with lone_stack.runtime() as stub, lone_stack.root_filesystems() as images:
        driver = Driver(stub, live_image)
        pod = driver.run("owner")
        owned = driver.create(pod, "owned")
        before = {path.name for path in rootfs.iterdir()}
        for key in (NOWHERE, f"{NOWHERE}/0"):
            images.PrepareRootfs(
                rootfs_pb2.PrepareRootfsRequest(key=key, image=live_image), timeout=DEADLINE
            )
        assert len(list(rootfs.iterdir())) == len(before) + 2
        lone_stack.stop("image")
        with refused(StatusCode.UNAVAILABLE):
            driver.create(pod, "late")
        lone_stack.start("image")
        wait_until("the orphans are gone", lambda: {p.name for p in rootfs.iterdir()} == before, 60)
        driver.start(owned)
        driver.clear()


def test_handlers_beside_those_that_are_always_there(lone_stack: Stack, live_image: str) -> None:
    with lone_stack.runtime() as stub:
        handlers = stub.Status(cri.StatusRequest(), timeout=DEADLINE).runtime_handlers
        assert [handler.name for handler in handlers] == ["", "crun", "runc", "mine"]
        driver = Driver(stub, live_image)
        for name in ("crun", "runc", "mine"):
            pod = driver.run(f"by-{name}", handler=name)
            assert driver.output(driver.launch(pod, "app"), "echo", name) == f"{name}\n"
        with refused(StatusCode.FAILED_PRECONDITION) as refusal:
            driver.run("by-off", handler="off")
        assert "'off'" in refusal.text
        assert "turns it off" in refusal.text
        driver.clear()


def test_settings_of_handlers_and_containers(lone_stack: Stack, live_image: str) -> None:
    with lone_stack.runtime() as stub:
        driver = Driver(stub, live_image)
        config = pod_config("set")
        config.annotations["note.pod"], config.annotations["other"] = "1", "2"
        config.linux.security_context.privileged = True
        pod = driver.run(config)
        app = driver.config("app")
        app.annotations["note.app"] = "3"
        app.linux.security_context.run_as_user.value = 65534
        app.devices.add(host_path="/dev/null", container_path="/dev/mine", permissions="rw")
        container = driver.launch(pod, app)
        spec = driver.container_info(container)["runtimeSpec"]
        own = {k: v for k, v in spec["annotations"].items() if k.startswith(("note", "other"))}
        assert own == {"note.pod": "1", "note.app": "3"}
        assert driver.output(container, "stat", "-c", "%u", "/dev/mine") == "65534\n"
        free = driver.config("free")
        free.linux.security_context.privileged = True
        devices = driver.container_info(driver.create(pod, free))["runtimeSpec"]["linux"].get("devices", [])
        assert len(devices) < 10
        greedy = driver.config("greedy")
        greedy.linux.resources.oom_score_adj = -999
        created = driver.create(pod, greedy)
        adjusted = driver.container_info(created)["runtimeSpec"]["process"]["oomScoreAdj"]
        assert adjusted == -999
        driver.clear()


def test_a_handler_that_comes_to_work_is_found_by_a_reload(lone_stack: Stack, live_image: str) -> None:
    with lone_stack.runtime() as stub:
        driver = Driver(stub, live_image, "late")
        with refused(StatusCode.FAILED_PRECONDITION) as refusal:
            driver.run("early")
        assert "'late' cannot be used" in refusal.text
        program = lone_stack.root.parent / "late"
        program.write_text(f'#!/bin/sh\nexec {CRUN} "$@"\n')
        program.chmod(0o755)
        os.kill(lone_stack.processes["runtime"].popen.pid, signal.SIGHUP)

        def handlers() -> list[str]:
            return [h.name for h in stub.Status(cri.StatusRequest(), timeout=DEADLINE).runtime_handlers]

        wait_until("the handler is found", lambda: "late" in handlers())
        assert driver.output(driver.launch(driver.run("later"), "app"), "echo", "works") == "works\n"
        driver.clear()
