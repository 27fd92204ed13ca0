"""The three daemons: configuration, sockets, health."""

from __future__ import annotations

import os
import stat
from typing import Any

from triptych_cli.config.programs import ask
from triptych_cli.context import Context, DaemonName
from triptych_cli.doctor.configured import DIRECTORY
from triptych_cli.doctor.model import Findings, Host, error, info, ok, warning
from triptych_cli.errors import CliError
from triptych_cli.rpc import channel

_SECONDS = 5.0


def check_configuration(host: Host) -> Findings:
    """Ask each daemon's own program whether it would start with its configuration."""
    for name in DaemonName:
        file = host.config_dir / f"{name.value}.toml"
        if host.config_dir != DIRECTORY and not file.exists():
            yield warning(name.unit, f"no {file}", "write it, or leave out --config-dir")
            continue
        try:
            # Without a file there may be drop-ins, at which the program looks in its own directory only.
            done = ask(name, "--check-config", file if file.exists() else None)
        except CliError as problem:
            yield warning(name.unit, problem.message, "./dev install")
            continue
        if done.returncode == 0:
            yield ok(name.unit, done.stdout.decode(errors="replace").strip().partition(": ")[2])
            continue
        for line in done.stderr.decode(errors="replace").strip().splitlines():
            yield error(name.unit, line, "correct the file, then: triptych config check")


def check_sockets(host: Host) -> Findings:
    """Whether each socket is there, private, served and healthy."""
    for name in DaemonName:
        yield from _socket(host, name)


def _socket(host: Host, name: DaemonName) -> Findings:
    path = host.sockets[name]
    try:
        found = os.stat(path)
    except FileNotFoundError:
        yield warning(name.unit, f"does not run: no {path}", f"systemctl start {name.unit}")
        return
    except OSError as problem:
        yield warning(name.unit, f"{path}: {problem.strerror}", "run as root")
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield error(
            name.unit, f"{path} is not a socket", f"remove {path}, then: systemctl start {name.unit}"
        )
        return
    if found.st_mode & 0o077 or found.st_uid != 0:
        mode = stat.S_IMODE(found.st_mode)
        yield error(
            name.unit,
            f"{path} has mode {mode:04o} and owner {found.st_uid}: whoever may connect is root",
            f"chmod 600 {path}; chown root {path}; SocketMode=0600 in the .socket unit",
        )
    yield from _health(host, name)


def _health(host: Host, name: DaemonName) -> Findings:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        with channel(Context(host.sockets), name) as opened:
            stub: Any = health_pb2_grpc.HealthStub(opened)
            answer, call = stub.Check.with_call(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
            told = {key: str(value) for key, value in call.initial_metadata() or ()}
    except CliError as problem:
        yield error(
            name.unit, problem.message, f"journalctl -u {name.unit} -e; systemctl restart {name.unit}"
        )
        return
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        yield warning(name.unit, "runs, but does not serve", f"journalctl -u {name.unit} -e")
        return
    version, pid = told.get("triptych-version", "?"), told.get("triptych-pid", "?")
    yield ok(name.unit, f"{version}, process {pid}, serves {host.sockets[name]}")
    if name is DaemonName.RUNTIME:
        yield from _conditions(host)


def _conditions(host: Host) -> Findings:
    from runtime.v1 import api_pb2, api_pb2_grpc

    try:
        with channel(Context(host.sockets), DaemonName.RUNTIME) as opened:
            stub = api_pb2_grpc.RuntimeServiceStub(opened)
            status = stub.Status(api_pb2.StatusRequest(), timeout=_SECONDS)
    except CliError as problem:
        yield warning("conditions", problem.message, "journalctl -u triptych-runtime -e")
        return
    for condition in status.status.conditions:
        if condition.status:
            yield ok(condition.type, "yes")
        else:
            yield error(condition.type, f"{condition.reason}: {condition.message}", "see the findings above")
    names = [handler.name for handler in status.runtime_handlers if handler.name]
    yield info("runtime handlers", ", ".join(names) or "none")
