"""systemd, where it is the running system's manager; otherwise only files are placed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from triptych_dev.node.errors import CommandFailed
from triptych_dev.node.places import Places
from triptych_dev.node.shell import run

SOCKETS = (
    "triptych-image.socket",
    "triptych-runtime.socket",
    "triptych-streaming.socket",
    "triptych-streaming-http.socket",
)
SERVICES = ("triptych-image.service", "triptych-streaming.service", "triptych-runtime.service")
LIST_INSTANCES = ("list-units", "--all", "--plain", "--no-legend", "triptych-streaming@*.service")
SLICE = "triptych.slice"
NAT = "triptych-nat.service"
"""The masquerade of the default pod network, which the runtime daemon's unit pulls in."""


def runs_here(root: Path) -> bool:
    """Whether the node is this machine and systemd runs it (sd_booted(3))."""
    return root == Path("/") and Path("/run/systemd/system").is_dir()


def enable(root: Path) -> None:
    """Have the units start at boot; works on a root that is not running."""
    run(["systemctl", f"--root={root}", "-q", "enable", *SERVICES, *SOCKETS], step="enable units")


def prepare(places: Places) -> None:
    """Make known to the running system what the files say: units, directories, modules, sysctls."""
    run(["systemctl", "daemon-reload"], step="reload systemd")
    run(["systemd-tmpfiles", "--create", places.tmpfiles / "triptych.conf"], step="make directories")
    for module in ("overlay", "br_netfilter"):
        run(["modprobe", "-q", module], step=f"load {module}", check=False)
    program = "/usr/lib/systemd/systemd-sysctl"
    run([program, places.sysctl / "60-triptych.conf"], step="set sysctls", check=False)


def start(say: Callable[[str], None]) -> None:
    """Start everything, or restart what runs; returns when each daemon has said that it is ready.

    :param say: told when the pods' masquerade cannot be loaded, which the daemons do without.
    """
    run(["systemctl", "start", *SOCKETS], step="start sockets")
    try:
        run(["systemctl", "restart", NAT], step="pods will reach nothing beyond this node")
    except CommandFailed as error:
        say(error.message)
    run(["systemctl", "restart", *SERVICES], step="start daemons", deadline=300.0)
    if more := instances():
        run(["systemctl", "try-restart", *more], step="restart streaming instances", deadline=300.0)


def instances() -> list[str]:
    """The further streaming instances that are loaded."""
    listing = ["systemctl", *LIST_INSTANCES]
    return [line.split()[0] for line in run(listing, step="list instances").splitlines() if line.strip()]


def stop_and_disable() -> None:
    """Stop everything and take it out of the boot; what is not there is no error."""
    every: Sequence[str] = (*instances(), *reversed(SERVICES), *SOCKETS, NAT)
    run(["systemctl", "disable", "--now", "-q", *every], step="stop daemons", deadline=300.0, check=False)
    run(["systemctl", "stop", SLICE], step="stop slice", check=False)


def forget() -> None:
    """After the unit files are gone."""
    run(["systemctl", "daemon-reload"], step="reload systemd")
    every = (*SERVICES, *SOCKETS, NAT, SLICE, "triptych-streaming@*.service")
    run(["systemctl", "reset-failed", *every], step="forget units", check=False)
