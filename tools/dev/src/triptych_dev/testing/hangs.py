"""What tests of hanging parts share: short deadlines, calls in the background, who else must not wait."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
from runtime.v1 import api_pb2 as cri

from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import Driver

#: Seconds of every deadline of the daemon there.
SHORT = int(3 * PATIENCE)
#: Seconds that an answer takes at most that waits for nobody.
AT_ONCE = 1.0 * PATIENCE

#: The table of a daemon whose deadlines are short.
DEADLINES = {"oci_runtime": SHORT, "monitor": SHORT, "kill": SHORT, "create": 20.0 * PATIENCE}


_RUNTIME = """#!/bin/sh
# crun, but it hangs in a command as long as the file hang-COMMAND exists.
for word; do
    case "$word" in create|start|delete|exec) while [ -e {hold}/hang-"$word" ]; do sleep 0.05; done;; esac
done
exec crun "$@"
"""

_PLUGIN = """#!{python} -IS
import json, os, sys, time
config = json.load(sys.stdin)
command = os.environ["CNI_COMMAND"]
if command == "VERSION":
    print(json.dumps({{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}}))
    sys.exit()
pod = dict(part.split("=", 1) for part in os.environ["CNI_ARGS"].split(";"))["K8S_POD_NAME"]
while os.path.exists(f"{hold}/hang-{{command}}-{{pod}}"):
    time.sleep(0.05)
if os.path.exists(f"{hold}/fail-{{command}}-{{pod}}"):
    print(json.dumps({{"cniVersion": "1.0.0", "code": 101, "msg": "the switch is on fire"}}))
    sys.exit(1)
if command == "ADD":
    print(json.dumps(config["prevResult"]))
"""


class Hold:
    """The files by which the tests make parts hang."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def set(self, name: str) -> None:
        (self.directory / name).touch()

    def lift(self, name: str = "*") -> None:
        for file in self.directory.glob(name):
            file.unlink()


def hanging_stack(base: Path, hold: Hold) -> Stack:
    """A stack with short deadlines, a handler `slow` and a CNI plugin that hang at a word of `hold`."""
    runtime, plugins = base / "slow", base / "bin"
    plugins.mkdir()
    runtime.write_text(_RUNTIME.format(hold=hold.directory))
    (plugins / "hang").write_text(_PLUGIN.format(python=sys.executable, hold=hold.directory))
    for file in (runtime, plugins / "hang"):
        file.chmod(0o755)
    overrides: dict[str, Any] = {
        "handlers": {"crun": {}, "slow": {"path": str(runtime)}},
        "default_handler": "crun",
        "deadlines": DEADLINES,
        "network": {
            "bin_dirs": [str(plugins), "/opt/cni/bin", "/usr/lib/cni"],
            "setup_deadline": SHORT,
            "teardown_deadline": SHORT,
            "retry_seconds": 0.5,
        },
    }
    made = Stack(base / "stack", f"thang{os.getpid()}", "10.97.0.0/16", {"runtime": overrides})
    made.write_configuration()
    conflist = base / "stack" / "cni" / "10-test.conflist"
    document = json.loads(conflist.read_text())
    document["plugins"].append({"type": "hang"})
    conflist.write_text(json.dumps(document))
    return made


def leftovers(stack: Stack) -> list[str]:
    """What pods and containers left on the node."""
    runtime = stack.state / "runtime"
    found = [str(p) for part in ("containers", "ns", "exits") for p in (runtime / part).glob("*")]
    found += [str(p) for p in (runtime / "oci").glob("*/*")]
    found += [str(p) for p in (stack.root / "ipam").glob("*/10.*")]
    found += [str(p) for p in (stack.root / "image" / "rootfs").glob("*")]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {runtime}/c" in line]
    return found


def processes_of(identity: str) -> list[str]:
    """Command lines that name a container: its monitor, and the OCI runtime at work on it."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if identity in text:
            found.append(text)
    return found


def call_in_background(work: Any) -> tuple[threading.Thread, list[Any]]:
    """Run a call in a thread; its outcome comes into the list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except grpc.RpcError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def check_nobody_waits(driver: Driver, name: str) -> None:
    """A whole life of another pod and every list, each quickly."""
    started = time.monotonic()
    driver.stub.ListContainers(cri.ListContainersRequest(), timeout=AT_ONCE)
    driver.stub.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=AT_ONCE)
    driver.stub.ListContainerStats(cri.ListContainerStatsRequest(), timeout=AT_ONCE)
    driver.stub.Status(cri.StatusRequest(), timeout=AT_ONCE)
    assert time.monotonic() - started < AT_ONCE
    pod = driver.run(name, deadline=SHORT)
    container = driver.create(pod, "quick", deadline=SHORT)
    driver.start(container, deadline=SHORT)
    assert driver.status(container).state == cri.CONTAINER_RUNNING
    driver.stop(container, 1, deadline=SHORT)
    driver.remove(container, deadline=SHORT)
    driver.stop_pod(pod, deadline=SHORT)
    driver.remove_pod(pod, deadline=SHORT)
