"""What cannot be avoided: the bridge plugin, conmon and the OCI runtime, run by hand."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triptych_linux import namespaces
from triptych_linux.namespaces import Namespace

from triptych_dev.benches.lives import Timings
from triptych_dev.errors import StepFailed
from triptych_dev.ociimages import busybox_layer

_DEADLINE = 60.0


@dataclass(slots=True)
class Floor:
    """Pods by hand, with nothing kept, watched or told to anybody.

    :param network: the conflist; only its first plugin is run.
    :param binaries: directory of the CNI plugins.
    """

    root: Path
    network: dict[str, Any]
    binaries: str
    runtime: str = "crun"
    name: str = "by hand"
    timings: Timings = field(default_factory=dict)

    def prepare(self) -> None:
        """Unpack the root file system."""
        rootfs = self.root / "rootfs"
        rootfs.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(busybox_layer().tar())) as archive:
            archive.extraction_filter = lambda member, _: member  # Python 3.11.2 has no filter=
            archive.extractall(rootfs)
        for name in ("exits", "state", "ns", "bundles"):
            (self.root / name).mkdir()

    def lives(self, parallel: int, tag: str) -> None:
        """`parallel` lives side by side, step by step."""
        batch = [_Pod(self, f"{tag}-{index}") for index in range(parallel)]
        with ThreadPoolExecutor(parallel) as pool:
            try:
                list(pool.map(_Pod.prepare, batch))
                for operation, step in _STEPS.items():
                    spent = list(pool.map(_timed(step), batch))
                    self.timings.setdefault(operation, {}).setdefault(parallel, []).extend(spent)
            finally:
                list(pool.map(_Pod.clean, batch))

    def clean(self) -> None:
        """Remove every trace."""
        bridge = self.network["plugins"][0]["bridge"]
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, timeout=10, check=False)
        shutil.rmtree(self.root, ignore_errors=True)


@dataclass(slots=True)
class _Pod:
    floor: Floor
    name: str
    result: Any = None

    @property
    def _netns(self) -> Path:
        return self.floor.root / "ns" / self.name

    @property
    def _bundle(self) -> Path:
        return self.floor.root / "bundles" / self.name

    @property
    def _runtime(self) -> list[str]:
        return [self.floor.runtime, "--root", str(self.floor.root / "state")]

    def prepare(self) -> None:
        def make() -> None:
            namespaces.unshare(Namespace.NETWORK)
            namespaces.pin(Namespace.NETWORK, self._netns)

        namespaces.run_in_thread(make)
        self._bundle.mkdir()
        _run([self.floor.runtime, "spec"], cwd=self._bundle)
        file = self._bundle / "config.json"
        spec = json.loads(file.read_text())
        spec["process"] |= {"args": ["sleep", "1000"], "terminal": False}
        spec["root"]["path"] = str(self.floor.root / "rootfs")
        for namespace in spec["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = str(self._netns)
        spec["linux"]["cgroupsPath"] = f"/triptych-bench/{self.name}"
        file.write_text(json.dumps(spec))

    def add(self) -> None:
        self.result = json.loads(self._plugin("ADD", {}))

    def delete(self) -> None:
        self._plugin("DEL", {"prevResult": self.result})
        self.result = None

    def _plugin(self, command: str, more: dict[str, Any]) -> bytes:
        document = self.floor.network
        request = document["plugins"][0] | {"cniVersion": "1.0.0", "name": document["name"]} | more
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.name,
            "CNI_NETNS": str(self._netns),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": self.floor.binaries,
            "PATH": os.environ["PATH"],
        }
        plugin = str(Path(self.floor.binaries, request["type"]))
        return _run([plugin], stdin=json.dumps(request).encode(), env=environment)

    def create(self) -> None:
        bundle, root = self._bundle, self.floor.root
        answer, sync = os.pipe()
        begin, start = os.pipe()
        argv = [
            "conmon",
            "--bundle",
            str(bundle),
            "--cid",
            self.name,
            "--cuuid",
            self.name,
            "--name",
            "main",
        ]
        argv += ["--runtime", shutil.which(self.floor.runtime) or self.floor.runtime]
        argv += ["--container-pidfile", f"{bundle}/pid", "--exit-dir", f"{root}/exits", "--full-attach"]
        argv += ["--log-path", f"k8s-file:{bundle}/log", "--log-level", "error"]
        argv += [f"--runtime-arg={arg}" for arg in self._runtime[1:]]
        environment = os.environ | {"_OCI_SYNCPIPE": str(sync), "_OCI_STARTPIPE": str(begin)}
        try:
            os.write(start, b"\0")
            _run(argv, env=environment, pass_fds=(sync, begin), cwd=bundle)
            os.close(sync)
            sync = -1
            line = os.read(answer, 65536)
            if json.loads(line)["pid"] <= 0:
                raise StepFailed(f"conmon: {line.decode()}")
        finally:
            for descriptor in (answer, sync, begin, start):
                if descriptor >= 0:
                    os.close(descriptor)

    def start(self) -> None:
        _run([*self._runtime, "start", self.name])

    def exec(self) -> None:
        _run([*self._runtime, "exec", self.name, "true"])

    def kill(self) -> None:
        _run([*self._runtime, "kill", self.name, "KILL"])
        exit_file = self.floor.root / "exits" / self.name
        deadline = time.monotonic() + _DEADLINE
        while not exit_file.exists():
            if time.monotonic() > deadline:
                raise StepFailed(f"conmon told no exit of {self.name}")
            time.sleep(0.0005)

    def remove(self) -> None:
        _run([*self._runtime, "delete", self.name])

    def clean(self) -> None:
        with contextlib.suppress(StepFailed):
            _run([*self._runtime, "delete", "--force", self.name])
        if self.result is not None:
            with contextlib.suppress(StepFailed):
                self.delete()
        namespaces.unpin(self._netns)
        shutil.rmtree(self._bundle, ignore_errors=True)


_STEPS = {
    "CNI ADD": _Pod.add,
    "conmon and OCI create": _Pod.create,
    "OCI start": _Pod.start,
    "OCI exec": _Pod.exec,
    "OCI kill, exit told": _Pod.kill,
    "OCI delete": _Pod.remove,
    "CNI DEL": _Pod.delete,
}


def _timed(step: Callable[[_Pod], None]) -> Callable[[_Pod], float]:
    def take(pod: _Pod) -> float:
        begun = time.perf_counter()
        step(pod)
        return (time.perf_counter() - begun) * 1000

    return take


def _run(argv: list[str], *, stdin: bytes = b"", **options: Any) -> bytes:
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=_DEADLINE, check=False, **options)
    if done.returncode != 0:
        text = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise StepFailed(f"{argv[0]} {' '.join(argv[1:4])}: {text}")
    return bytes(done.stdout)
