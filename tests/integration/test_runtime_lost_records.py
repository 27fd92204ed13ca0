"""Records that are lost while containers run: damaged, or of a newer version. Containers of others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import Driver, wait_until
from triptych_dev.testing.ocicontainer import CRUN, write_bundle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

LEFT_ALONE = "containers without a record live on"


@pytest.fixture
def stack(tmp_path: Path, live_image: str) -> Iterator[Stack]:
    overrides = {"runtime": {"handlers": {"crun": {"root": str(tmp_path / "shared")}}}}
    made = Stack(tmp_path / "stack", f"tlost{os.getpid()}", "10.93.0.0/16", overrides)
    made.write_configuration()
    with made.serving(live_image, "image", "runtime"):
        yield made


def database(stack: Stack) -> Path:
    return stack.root / "runtime" / "state.db"


def told(stack: Stack, what: str) -> int:
    """How often the runtime daemon logged something."""
    return (stack.root / "runtime.log").read_text().count(what)


def restart(stack: Stack, what: str) -> None:
    """Start the runtime daemon again, and wait until it has logged something once more."""
    before = told(stack, what)
    stack.stop("runtime")
    stack.start("runtime")
    wait_until(f"it tells {what!r}", lambda: told(stack, what) > before)


def run(stack: Stack, image: str) -> tuple[str, str, int]:
    """A pod and a container that runs in it, by ID, and the PID of that."""
    with stack.runtime() as stub:
        driver = Driver(stub, image)
        pod = driver.run("lasting")
        container = driver.launch(pod, "app")
        return pod.id, container, int(driver.container_info(container)["pid"])


def alive(pid: int, container: str) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return container in Path(f"/proc/{pid}/cgroup").read_text()
    return False


def left(stack: Stack) -> list[str]:
    """What is kept for containers and pods, on both sides."""
    state = stack.state / "runtime"
    places = (state / "containers", state / "ns", state / "sandboxes", stack.root / "image" / "rootfs")
    return [entry.name for place in places for entry in place.glob("*")]


def test_what_runs_outlives_a_damaged_database(stack: Stack, live_image: str) -> None:
    pod, container, pid = run(stack, live_image)
    stack.kill("runtime")
    database(stack).write_bytes(b"this is no database" * 500)
    database(stack).with_name("state.db-wal").unlink()
    stack.start("runtime")
    wait_until("the container is left alone", lambda: told(stack, LEFT_ALONE))
    restart(stack, LEFT_ALONE)  # the next start knows it still
    assert alive(pid, container)
    assert {pod, container} <= set(left(stack))
    with stack.runtime() as stub:
        driver = Driver(stub, live_image)
        assert driver.output(driver.launch(driver.run("new"), "app"), "echo", "works") == "works\n"
        driver.clear()
    assert alive(pid, container)
    os.kill(pid, signal.SIGKILL)
    wait_until("the container has ended", lambda: not alive(pid, container))
    restart(stack, "removing an orphan")
    wait_until("nothing of it is left", lambda: not left(stack))


def test_what_runs_outlives_a_version_that_cannot_read_its_records(stack: Stack, live_image: str) -> None:
    pod, container, pid = run(stack, live_image)
    stack.kill("runtime")
    with contextlib.closing(sqlite3.connect(database(stack))) as connection:
        rows = {
            (table, identity): data
            for table in ("sandboxes", "containers")
            for identity, data in connection.execute(f"SELECT id, data FROM {table}")
        }
        assert {identity for _, identity in rows} == {pod, container}
        for (table, identity), data in rows.items():
            record: dict[str, Any] = msgspec.msgpack.decode(data)
            newer = msgspec.msgpack.encode(record | {"phase": "a phase of tomorrow"})
            connection.execute(f"UPDATE {table} SET data = ? WHERE id = ?", (newer, identity))
        connection.commit()
    stack.start("runtime")
    wait_until("the container is left alone", lambda: told(stack, LEFT_ALONE))
    assert alive(pid, container)
    stack.kill("runtime")
    with contextlib.closing(sqlite3.connect(database(stack))) as connection:
        for (table, identity), data in rows.items():
            connection.execute(f"UPDATE {table} SET data = ? WHERE id = ?", (data, identity))
        connection.commit()
    stack.start("runtime")
    with stack.runtime() as stub:
        driver = Driver(stub, live_image)
        assert driver.container_info(container)["pid"] == pid
        assert driver.output(container, "echo", "again") == "again\n"
        driver.clear()
    wait_until("nothing of it is left", lambda: not left(stack))


def test_containers_of_others_under_the_same_root_are_left_alone(stack: Stack, tmp_path: Path) -> None:
    bundle, root = tmp_path / "foreign", tmp_path / "shared"
    write_bundle(bundle, ["sleep", "1000"], tty=False)
    document = json.loads((bundle / "config.json").read_text())
    document["linux"]["cgroupsPath"] = f"/{stack.name}-foreign"
    (bundle / "config.json").write_text(json.dumps(document))
    crun = [CRUN, "--root", str(root)]
    subprocess.run([*crun, "create", "--bundle", str(bundle), "foreign"], check=True, timeout=60)
    try:
        restart(stack, "an OCI container is not this daemon's")
        subprocess.run([*crun, "state", "foreign"], check=True, timeout=60, capture_output=True)
    finally:
        subprocess.run([*crun, "delete", "--force", "foreign"], check=False, timeout=60)
