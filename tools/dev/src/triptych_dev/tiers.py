"""`./dev test`: the suite, whole or by tier, by pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import click

from triptych_dev.node.shell import CHECKOUT_ROOT


@dataclass(frozen=True, slots=True)
class Tier:
    """A part of the suite.

    :param marks: pytest's expression that picks its tests.
    :param paths: where they are; empty for everywhere.
    """

    help: str
    marks: str
    paths: tuple[str, ...] = ()


TIERS = {
    "all": Tier("everything but the virtual machine", "not node"),
    "unit": Tier("what needs neither root nor other programs", "not integration and not node"),
    "integration": Tier(
        "real registry, OCI runtimes, conmon, CNI plugins, as root", "integration and not node"
    ),
    "conformance": Tier("what the CRI and its clients demand", "not node", ("tests/conformance",)),
    "node": Tier("a virtual machine with systemd", "node"),
}


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[TIER] [PYTEST ARGUMENTS]")
def test(arguments: tuple[str, ...]) -> int:
    """Run the tests of a TIER: all (default), unit, integration, conformance or node.

    What follows goes to pytest: ./dev test unit -k reference -x. Tests that need a program which is not
    installed are skipped with the name of its package; where CI is set they fail.
    """
    name, rest = "all", list(arguments)
    if rest and rest[0] in TIERS:
        name = rest.pop(0)
    tier = TIERS[name]
    named = any((CHECKOUT_ROOT / argument.partition("::")[0]).exists() for argument in rest)
    paths = [] if named else list(tier.paths)
    argv = [sys.executable, "-m", "pytest", "-m", tier.marks, *rest, *paths]
    return subprocess.run(argv, cwd=CHECKOUT_ROOT, env={**os.environ, "TRIPTYCH_TIER": name}).returncode
