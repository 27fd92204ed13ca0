"""`./dev bench pull`: pulling images against containerd, from one registry, in one run on one machine.

Every pull is cold: a daemon that was just started, on an empty root, with nothing in the page cache. The
peers take turns, so that noise of the machine falls on both alike. Roots are removed at the very end only:
ext4 avoids inodes that were just freed, and a turn would pay for the files of the one before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import grpc
from rich.console import Console
from rich.table import Table
from runtime.v1 import api_pb2, api_pb2_grpc

from triptych_dev.benches import pull_images as images
from triptych_dev.benches.report import console, finish, host
from triptych_dev.benches.usage import Group, Peak, drop_caches
from triptych_dev.errors import DevError
from triptych_dev.ociimages import Image, Pusher
from triptych_dev.stack import Process, Registry, spawn, wait_for

OURS, PEER = "triptych", "containerd"
_DEADLINE = 600.0
CASES: dict[str, tuple[str, Callable[[], Sequence[Image]]]] = {
    "small-files": ("400 MB of small files, 5 layers", lambda: [images.small_files()]),
    "large-files": ("1 GB of large files, 4 layers", lambda: [images.large_files()]),
    "many-images": ("20 small images at once", lambda: list(images.small_images())),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One cold pull."""

    wall: float
    cpu: float
    peak_mb: float


@dataclass(slots=True)
class Daemon:
    """A daemon of one turn, with a root of its own."""

    name: str
    root: Path
    process: Process
    group: Group
    socket: Path

    def stop(self) -> None:
        self.process.stop()
        self.group.remove()


@dataclass(slots=True)
class Samples:
    """All pulls of one case."""

    by_peer: dict[str, list[Sample]] = field(default_factory=dict)

    def middle(self, peer: str) -> dict[str, float]:
        """Medians."""
        taken = self.by_peer[peer]
        return {
            "wall_s": round(statistics.median(sample.wall for sample in taken), 3),
            "cpu_s": round(statistics.median(sample.cpu for sample in taken), 3),
            "peak_mb": round(statistics.median(sample.peak_mb for sample in taken), 1),
            "n": len(taken),
        }

    def ratios(self) -> dict[str, float]:
        """Ours through the peer's: below 1 is better."""
        ours, peer = self.middle(OURS), self.middle(PEER)
        return {key: round(ours[key] / peer[key], 3) for key in ("wall_s", "cpu_s", "peak_mb")}


def run(
    rounds: int = 5,
    only: Sequence[str] = (),
    peers: Sequence[str] = (OURS, PEER),
    out: Console | None = None,
) -> dict[str, Any]:
    """Measure; gives `results` and `ratios` by case.

    :param only: names of cases; all when empty.
    """
    root = Path(tempfile.mkdtemp(prefix="triptych-bench-pull-"))
    registry = Registry(root / "registry")
    results: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    try:
        registry.start()
        for case in only or CASES:
            references = _publish(registry, case)
            _configure(root / "certs.d", registry.host)
            samples = _measure(root, case, references, rounds, peers, out)
            results[case] = {peer: samples.middle(peer) for peer in peers}
            if len(peers) == 2:
                ratios[case] = samples.ratios()
    finally:
        registry.stop()
        shutil.rmtree(root, ignore_errors=True)
    return {"results": results, "ratios": ratios}


def _publish(registry: Registry, case: str) -> list[str]:
    pusher = Pusher(registry.host)
    return [pusher.push(f"bench/{case}-{n}", "1", image) for n, image in enumerate(CASES[case][1]())]


def _configure(directory: Path, registry: str) -> None:
    """Tell both that the registry speaks plain HTTP, so that neither spends its time on trying TLS."""
    hosts = directory / registry / "hosts.toml"
    hosts.parent.mkdir(parents=True, exist_ok=True)
    address = f"http://{registry}"
    hosts.write_text(f'server = "{address}"\n[host."{address}"]\ncapabilities = ["pull", "resolve"]\n')


def _measure(
    root: Path, case: str, references: Sequence[str], rounds: int, peers: Sequence[str], out: Console | None
) -> Samples:
    samples = Samples({peer: [] for peer in peers})
    for number in range(rounds):
        for peer in peers if number % 2 == 0 else reversed(peers):
            directory = root / f"{case}-{peer}-{number}"
            sample = _pull_cold(peer, directory, references)
            samples.by_peer[peer].append(sample)
            if out is not None:
                out.print(
                    f"{case} {number + 1}/{rounds} {peer}: {sample.wall:.2f} s, {sample.cpu:.2f} s CPU, "
                    f"{sample.peak_mb:.0f} MB",
                    highlight=False,
                )
    return samples


def _pull_cold(peer: str, directory: Path, references: Sequence[str]) -> Sample:
    directory.mkdir()
    daemon = (_start_ours if peer == OURS else _start_containerd)(directory)
    try:
        with (
            grpc.insecure_channel(f"unix:{daemon.socket}") as channel,
            ThreadPoolExecutor(len(references)) as threads,
        ):
            stub = api_pb2_grpc.ImageServiceStub(channel)
            stub.ImageFsInfo(api_pb2.ImageFsInfoRequest(), timeout=30)

            def pull(reference: str) -> None:
                image = api_pb2.ImageSpec(image=reference)
                stub.PullImage(api_pb2.PullImageRequest(image=image), timeout=_DEADLINE)

            drop_caches()
            before, started = daemon.group.cpu_seconds(), time.monotonic()
            with Peak(daemon.group) as peak:
                list(threads.map(pull, references))
                wall = time.monotonic() - started
                cpu = daemon.group.cpu_seconds() - before
            return Sample(wall, cpu, peak.bytes / 1e6)
    finally:
        daemon.stop()


def _start_ours(directory: Path) -> Daemon:
    socket, config = directory / "s", directory / "image.toml"
    config.write_text(
        f'socket = "{socket}"\nroot = "{directory}/root"\n'
        f'[registry]\nconfig_path = ["{directory.parent}/certs.d"]\n'
    )
    argv = [sys.executable, "-m", "triptych_image", "--config", str(config)]
    return _started(OURS, directory, argv, socket)


def _start_containerd(directory: Path) -> Daemon:
    program = shutil.which("containerd")
    if program is None:
        raise DevError("containerd is not installed (apt install containerd): nothing to compare with")
    socket, config = directory / "s", directory / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
        f'[grpc]\naddress = "{socket}"\n'
        f'[plugins."io.containerd.internal.v1.opt"]\npath = "{directory}/opt"\n'
        '[plugins."io.containerd.grpc.v1.cri"]\nrestrict_oom_score_adj = true\n'
        f'[plugins."io.containerd.grpc.v1.cri".cni]\nconf_dir = "{directory}/cni"\n'
        f'[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "{directory.parent}/certs.d"\n'
    )
    return _started(PEER, directory, [program, "--config", str(config)], socket)


def _started(name: str, directory: Path, argv: list[str], socket: Path) -> Daemon:
    process = spawn(name, argv, directory / "log")
    group = Group(f"triptych-bench-pull-{os.getpid()}")
    daemon = Daemon(name, directory, process, group, socket)
    try:
        group.add(process.popen.pid)
        wait_for(lambda: _answers(socket), process)
    except BaseException:
        daemon.stop()
        raise
    return daemon


def _answers(socket: Path) -> bool:
    if not socket.exists():
        return False
    with grpc.insecure_channel(f"unix:{socket}") as channel, contextlib.suppress(grpc.RpcError):
        api_pb2_grpc.ImageServiceStub(channel).ImageFsInfo(api_pb2.ImageFsInfoRequest(), timeout=2)
        return True
    return False


def _table(found: dict[str, Any]) -> Table:
    table = Table(title="Cold pulls, medians")
    for heading in ("image", "", "wall s", "CPU s", "peak MB"):
        table.add_column(heading, justify="left" if heading in ("image", "") else "right")
    for case, peers in found["results"].items():
        title = CASES[case][0]
        for peer, middle in peers.items():
            table.add_row(
                title, peer, f"{middle['wall_s']:.2f}", f"{middle['cpu_s']:.2f}", f"{middle['peak_mb']:.0f}"
            )
            title = ""
        if case in found["ratios"]:
            ratio = found["ratios"][case]
            table.add_row("", "ratio", *(f"{ratio[key]:.2f}" for key in ("wall_s", "cpu_s", "peak_mb")))
        table.add_section()
    return table


@click.command("pull")
@click.option("--rounds", default=5, show_default=True, help="Cold pulls of each peer.")
@click.option("--case", "only", multiple=True, type=click.Choice(list(CASES)), help="Measure only these.")
@click.option("--peer", "peers", multiple=True, type=click.Choice([OURS, PEER]), help="Measure only these.")
def main(rounds: int, only: tuple[str, ...], peers: tuple[str, ...]) -> None:
    """Pull images cold, triptych and containerd in turns."""
    if os.geteuid() != 0:
        raise DevError("bench pull needs root: unpacking makes devices and owners")
    machine, out = host(), console()
    found = run(rounds, only, peers or (OURS, PEER), out)
    out.print(_table(found))
    finish("pull", machine, found["results"], found["ratios"])
