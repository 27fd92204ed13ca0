"""A real container of an OCI runtime and conmon, without any daemon of ours: something to stream with."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.streaming.v1 import streaming_pb2 as pb

from triptych_dev.patience import PATIENCE

CRUN = "/usr/bin/crun"
RUNC = "/usr/sbin/runc"
CONMON = "/usr/bin/conmon"
BUSYBOX = "/bin/busybox"
GROUP = "triptych-streaming-test"
"""The parent of their cgroups."""
_READY_SECONDS = 20.0 * PATIENCE
_APPLETS = (
    "sh cat echo sleep head tail true false wc stty kill ps dd yes seq md5sum env nohup sync tty touch"
)


@dataclass(slots=True)
class Container:
    """A running container with its conmon."""

    id: str
    bundle: Path
    root: Path
    pid: int
    conmon: int
    runtime: str = CRUN

    @property
    def attach_socket(self) -> str:
        return str(self.bundle / "attach")

    @property
    def control_fifo(self) -> str:
        return str(self.bundle / "ctl")

    @property
    def network_namespace(self) -> str:
        return f"/proc/{self.pid}/ns/net"

    @property
    def runtime_command(self) -> list[str]:
        return [self.runtime, "--root", str(self.root)]

    def process(self, *args: str, tty: bool = False) -> bytes:
        """The OCI process document of a command."""
        document = _process(list(args), tty)
        return json.dumps(document).encode()

    def exec_request(
        self,
        *args: str,
        stdin: bool = False,
        stderr: bool = True,
        tty: bool = False,
        pod: str = "web",
        **more: Any,
    ) -> pb.OpenExecRequest:
        return pb.OpenExecRequest(
            target=pb.Target(container_id=self.id, pod_sandbox_id="pod", pod_name=pod, pod_namespace="test"),
            streams=pb.Streams(stdin=stdin, stdout=True, stderr=stderr and not tty, tty=tty),
            runtime_command=self.runtime_command,
            process=self.process(*args, tty=tty),
            **more,
        )

    def shell(self, script: str, **options: Any) -> pb.OpenExecRequest:
        return self.exec_request("/bin/sh", "-c", script, **options)

    def attach_request(self, *, tty: bool = False, stdin: bool = True) -> pb.OpenAttachRequest:
        return pb.OpenAttachRequest(
            target=pb.Target(container_id=self.id, pod_sandbox_id="pod"),
            streams=pb.Streams(stdin=stdin, stdout=True, stderr=not tty, tty=tty),
            attach_socket=self.attach_socket,
            control_fifo=self.control_fifo,
        )

    def forward_request(self, *ports: int) -> pb.OpenPortForwardRequest:
        return pb.OpenPortForwardRequest(
            target=pb.Target(pod_sandbox_id="pod"), network_namespace=self.network_namespace, ports=ports
        )


def _process(args: list[str], tty: bool) -> dict[str, Any]:
    return {
        "terminal": tty,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/bin", "TERM=xterm"],
        "cwd": "/",
    }


def write_bundle(directory: Path, args: list[str], tty: bool) -> None:
    """A bundle of busybox that runs `args`."""
    rootfs = directory / "rootfs"
    for name in ("bin", "proc", "dev", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, rootfs / "bin/busybox")
    for applet in _APPLETS.split():
        (rootfs / "bin" / applet).symlink_to("busybox")
    config = {
        "ociVersion": "1.0.2",
        "process": _process(args, tty),
        "root": {"path": str(rootfs)},
        "hostname": "streaming",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
            },
        ],
        "linux": {
            "namespaces": [{"type": name} for name in ("pid", "mount", "ipc", "uts", "network")],
            "cgroupsPath": f"/{GROUP}/{directory.name}",
        },
    }
    (directory / "config.json").write_text(json.dumps(config))


def run_container(
    name: str, bundle: Path, root: Path, runtime: str, *, tty: bool, stdin: bool, stdin_once: bool
) -> Container:
    """Run a bundle by a monitor, and wait until it runs."""
    options = [
        CONMON, "--api-version", "1", "--cid", name, "--cuuid", name, "--runtime", runtime,
        "--runtime-arg", "--root", "--runtime-arg", str(root), "--bundle", str(bundle), "--full-attach",
        "--container-pidfile", str(bundle / "pid"), "--conmon-pidfile", str(bundle / "conmon.pid"),
        "--exit-dir", str(bundle), "--log-path", f"k8s-file:{bundle}/log", "--log-level", "error",
    ]  # fmt: skip
    options += ["--terminal"] if tty else []
    options += ["--stdin"] if stdin else []
    options += ["--leave-stdin-open"] if stdin and not stdin_once else []
    subprocess.run(options, check=True, cwd=bundle)
    deadline = time.monotonic() + _READY_SECONDS
    while not ((bundle / "pid").exists() and (bundle / "pid").read_text()):
        assert time.monotonic() < deadline, (bundle / "log").read_text()
        time.sleep(0.02)
    subprocess.run([runtime, "--root", str(root), "start", name], check=True)
    pid, conmon = (int((bundle / each).read_text()) for each in ("pid", "conmon.pid"))
    return Container(name, bundle, root, pid, conmon, runtime)
