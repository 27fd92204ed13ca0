"""What goes into a bundle: commands, files, and what the daemons tell."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych_errors import TriptychError
from triptych_linux import process

from triptych_cli.bundle import redact, toml
from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CliError

_SECONDS = 20.0
_MOST = 16 << 20
"""Bytes kept of one command's output or one file."""

COMMANDS: dict[str, list[str]] = {
    "host/uname.txt": ["uname", "-a"],
    "host/mounts.txt": ["cat", "/proc/self/mountinfo"],
    "host/memory.txt": ["cat", "/proc/meminfo"],
    "host/pressure.txt": ["grep", "", "-r", "/proc/pressure"],
    "host/disk.txt": ["df", "-hT"],
    "host/inodes.txt": ["df", "-i"],
    "host/processes.txt": ["ps", "-eo", "pid,ppid,stat,etime,rss,cgroup:60,comm"],
    "host/kernel-log.txt": ["dmesg", "--level=emerg,alert,crit,err,warn", "-T"],
    "host/os-release.txt": ["cat", "/etc/os-release"],
    "host/cgroups.txt": ["find", "/sys/fs/cgroup", "-maxdepth", "3", "-name", "*triptych*"],
    "network/addresses.txt": ["ip", "-d", "address"],
    "network/routes.txt": ["ip", "route", "show", "table", "all"],
    "network/nft.txt": ["nft", "list", "ruleset"],
    "network/iptables.txt": ["iptables-save"],
    "network/namespaces.txt": ["lsns", "-t", "net"],
    "versions/crun.txt": ["crun", "--version"],
    "versions/runc.txt": ["runc", "--version"],
    "versions/conmon.txt": ["conmon", "--version"],
    "versions/systemd.txt": ["systemctl", "--version"],
    "versions/kubelet.txt": ["kubelet", "--version"],
    "systemd/units.txt": ["systemctl", "status", "--no-pager", "-l", "-n", "0", "triptych*"],
    "systemd/cat.txt": ["systemctl", "cat", "--no-pager", "triptych*"],
}
FILES = (
    "/etc/triptych/**/*.toml",
    *(f"/etc/cni/net.d/*.{kind}" for kind in ("conf", "conflist", "json")),  # beside them lie kubeconfigs
    "/etc/crictl.yaml",
    "/etc/containers/registries.d/*",
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of the bundle, already redacted.

    :param problem: why there is nothing in it, "" when there is.
    """

    name: str
    content: str
    problem: str = ""


def pieces(context: Context, since: str) -> Iterator[Piece]:
    """Everything, one piece after another; a part that fails says so and the rest goes on.

    :param since: how far back logs go, as journalctl understands it ("2 hours ago").
    """
    for name, argv in COMMANDS.items():
        yield command(name, argv)
    for daemon in DaemonName:
        argv = ["journalctl", "-u", f"{daemon.unit}*", "--no-pager", "-o", "short-precise", "--since", since]
        yield command(f"logs/{daemon.unit}.txt", argv)
        yield from _configuration(daemon)
    yield command("logs/kubelet.txt", ["journalctl", "-u", "kubelet", "--no-pager", "--since", since])
    yield from files(FILES)
    for name, ask in _questions(context).items():
        yield _told(name, ask)


def command(name: str, argv: list[str]) -> Piece:
    """What a program prints."""
    try:
        done = asyncio.run(process.run(argv, deadline=_SECONDS, step=argv[0], check=False, max_output=_MOST))
    except TriptychError as error:
        return Piece(name, "", str(error))
    said = (done.stdout + done.stderr).decode(errors="replace")
    failed = "" if done.returncode == 0 else done.how
    return Piece(name, f"$ {' '.join(argv)}\n{redact.text(said)}", failed)


def files(patterns: tuple[str, ...]) -> Iterator[Piece]:
    """Configuration files, by pattern."""
    for pattern in patterns:
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            if not path.is_file() or path.is_symlink():
                continue
            name = f"files{path}"
            try:
                yield Piece(name, _redacted(path))
            except OSError as error:
                yield Piece(name, "", error.strerror or str(error))
            except ValueError as error:
                yield Piece(name, "", f"left out, as its secrets cannot be told from the rest: {error}")


def _redacted(path: Path) -> str:
    """The content of a file, parsed where it has a format.

    :raises ValueError: it is not of its format, so nothing tells for certain where its secrets are.
    """
    content = path.read_bytes()[:_MOST]
    match path.suffix:
        case ".toml":
            return toml.written(redact.document(tomllib.loads(content.decode())))
        case ".json" | ".conf" | ".conflist":
            return json.dumps(redact.document(json.loads(content)), indent=1, ensure_ascii=False)
    return redact.text(content.decode(errors="replace"))


def _configuration(daemon: DaemonName) -> Iterator[Piece]:
    from triptych_cli.config.programs import ask

    for question, name in (
        ("--version", "version"),
        ("--check-config", "check"),
        ("--print-config", "config"),
    ):
        path = f"daemons/{daemon.value}-{name}.txt"
        try:
            done = ask(daemon, question)
        except TriptychError as error:
            yield Piece(path, "", str(error))
            continue
        said = (done.stdout + done.stderr).decode(errors="replace")
        yield Piece(path, redact.text(said), "" if done.returncode == 0 else done.how)


def _questions(context: Context) -> dict[str, Callable[[], Any]]:
    """RPCs whose answers help; none changes anything."""
    from triptych_cli.instances import instances
    from triptych_cli.status.collect import collect
    from triptych_cli.status.document import document
    from triptych_cli.trace.request import Recorder, call, parse

    def rpc(method: str, body: str = "{}") -> Callable[[], Any]:
        return lambda: call(context, Recorder(), parse(method, body))

    runtime, image = "runtime.v1.RuntimeService", "runtime.v1.ImageService"
    return {
        "daemons/status.json": lambda: document(collect(context)),
        "daemons/runtime-status.json": rpc(f"{runtime}/Status", '{"verbose": true}'),
        "daemons/pods.json": rpc(f"{runtime}/ListPodSandbox"),
        "daemons/containers.json": rpc(f"{runtime}/ListContainers"),
        "daemons/container-stats.json": rpc(f"{runtime}/ListContainerStats"),
        "daemons/images.json": rpc(f"{image}/ListImages"),
        "daemons/image-disk.json": rpc(f"{image}/ImageFsInfo"),
        "daemons/root-filesystems.json": rpc("triptych.rootfs.v1.RootfsService/ListRootfs"),
        "daemons/sessions.json": lambda: [
            call(each, Recorder(), parse("triptych.streaming.v1.StreamingService/ListSessions", "{}"))
            for each in instances(context, DaemonName.STREAMING)
        ],
    }


def _told(name: str, ask: Callable[[], Any]) -> Piece:
    try:
        return Piece(name, json.dumps(redact.document(_opened(ask())), indent=1, ensure_ascii=False))
    except CliError as error:
        return Piece(name, "", str(error))


def _opened(value: Any) -> Any:
    """Documents inside strings, as the verbose info has them, taken apart so that their keys are seen."""
    if isinstance(value, dict):
        return {key: _opened(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_opened(entry) for entry in value]
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return _opened(json.loads(value))
        except ValueError:
            return value
    return value
