"""The programs that the daemons run: are they there, do they start, are they new enough."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

from triptych_errors import TriptychError
from triptych_linux import process

from triptych_cli.context import DaemonName
from triptych_cli.doctor.model import Finding, Findings, Host, error, info, ok, warning

Bad = Callable[[str, str, str], Finding]

_SECONDS = 10.0
_NAMED = (("conmon", "conmon"), ("init", "catatonit"))
"""Keys of runtime.toml that name a program, and their defaults."""
_OLDEST = {"crun": (1, 0), "runc": (1, 1), "conmon": (2, 1)}


def check(host: Host) -> Findings:
    """Everything about programs."""
    yield from _oci_runtimes(host)
    conmon, init = (host.setting(DaemonName.RUNTIME, *named) for named in _NAMED)
    yield _program(host, "conmon", conmon, "conmon", error, "no container starts")
    sharing = "pods that share their PID namespace do not start"
    yield _program(host, "catatonit", init, "catatonit", warning, sharing)
    profile = host.setting(
        DaemonName.RUNTIME, "containers.seccomp_profile", "/usr/share/containers/seccomp.json"
    )
    if host.path(profile).exists():
        yield ok("seccomp profile", str(profile))
    else:
        yield error(
            "seccomp profile",
            f"{profile} is missing: containers with RuntimeDefault do not start",
            "apt-get install golang-github-containers-common",
        )
    yield from _apparmor(host)
    if host.which("criu") is None:
        yield info(
            "criu", "not installed: containers and pods cannot be checkpointed", "apt-get install criu"
        )


def _oci_runtimes(host: Host) -> Findings:
    handlers = host.setting(DaemonName.RUNTIME, "handlers", {"crun": {}, "runc": {}})
    findings = [
        _program(
            host, name, str(table.get("path") or name), name, warning, "pods of this handler do not start"
        )
        for name, table in handlers.items()
    ]
    yield from findings
    if not any(finding.state.value == "ok" for finding in findings):
        yield error("OCI runtime", "none works: no pod starts", "apt-get install crun")


def _program(host: Host, subject: str, program: str, package: str, bad: Bad, means: str) -> Finding:
    """Whether one program is there, starts and is new enough; `bad` judges its absence."""
    found = host.which(program)
    if found is None:
        return bad(subject, f"not installed: {means}", f"apt-get install {package}")
    said = version(found)
    if said is None:
        return bad(subject, f"{found} does not start: {means}", f"run {found} --version")
    numbers = re.search(r"(\d+)\.(\d+)", said)
    oldest = _OLDEST.get(subject)
    if oldest and numbers and (int(numbers[1]), int(numbers[2])) < oldest:
        return warning(
            subject, f"{said} is older than {oldest[0]}.{oldest[1]}", f"upgrade the package {package}"
        )
    return ok(subject, f"{said} at {found}")


def version(program: Path) -> str | None:
    """The first line of `--version`, shortened to name and number; None when it does not run."""
    try:
        done = asyncio.run(
            process.run([program, "--version"], deadline=_SECONDS, step=str(program), check=False)
        )
    except TriptychError:
        return None
    text = (done.stdout or done.stderr).decode(errors="replace").strip()
    return text.splitlines()[0] if done.returncode == 0 and text else None


def _apparmor(host: Host) -> Findings:
    if host.read("/sys/module/apparmor/parameters/enabled") != "Y":
        return
    if host.which("apparmor_parser") is None:
        yield warning(
            "apparmor",
            "on in the kernel, but its parser is missing: the default profile cannot be loaded",
            "apt-get install apparmor",
        )
    else:
        yield ok("apparmor", "on")
