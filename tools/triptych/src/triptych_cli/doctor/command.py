"""The command itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from triptych_cli import render
from triptych_cli.context import Context, DaemonName
from triptych_cli.doctor import cgroups, configured, daemons, disk, kernel, network, programs
from triptych_cli.doctor.model import Check, Finding, Host, State, error
from triptych_cli.options import output_option, pass_context

CHECKS = (
    Check("kernel", "Kernel", kernel.check),
    Check("cgroups", "Control groups", cgroups.check),
    Check("programs", "Programs", programs.check),
    Check("network", "Pod network", network.check),
    Check("disk", "Disk", disk.check),
    Check("config", "Configuration", daemons.check_configuration),
    Check("sockets", "Daemons", daemons.check_sockets),
)
_SIGNS = {
    State.OK: ("✓", "green"),
    State.INFO: ("·", "cyan"),
    State.WARNING: ("!", "yellow"),
    State.ERROR: ("✗", "red"),
}


@click.command()
@click.argument("checks", nargs=-1, type=click.Choice([check.name for check in CHECKS]))
@click.option(
    "--config-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=configured.DIRECTORY,
    show_default=True,
    help="Where the daemons' configuration is.",
)
@output_option
@pass_context
def doctor(context: Context, checks: tuple[str, ...], config_dir: Path) -> int:
    """Check this host, whole or by CHECKS: kernel, cgroups, programs, network, disk, config, sockets.

    Each finding comes with its remedy. Ends with status 1 when something keeps pods from running; warnings
    do not change the status.
    """
    sockets = {name: context.sockets[name] for name in DaemonName}
    host = Host(sockets, configured.read(config_dir), config_dir=config_dir)
    found = [(check, examine(check, host)) for check in CHECKS if not checks or check.name in checks]
    if context.json:
        render.as_json([_document(check, findings) for check, findings in found])
    else:
        _print(found)
    return 1 if any(f.state is State.ERROR for _, findings in found for f in findings) else 0


def examine(check: Check, host: Host) -> list[Finding]:
    """The findings of a check; one that cannot be carried out is a finding itself."""
    findings: list[Finding] = []
    try:
        findings.extend(check.run(host))
    except OSError as problem:
        findings.append(error(check.title, f"cannot be checked: {problem}", "run as root"))
    return findings


def _document(check: Check, findings: list[Finding]) -> dict[str, Any]:
    return {
        "check": check.name,
        "findings": [
            {"state": f.state.value, "subject": f.subject, "detail": f.detail, "remedy": f.remedy}
            for f in findings
        ],
    }


def _print(found: list[tuple[Check, list[Finding]]]) -> None:
    from rich.text import Text

    console = render.console()
    for check, findings in found:
        console.print(Text(check.title, style="bold"))
        for finding in findings:
            sign, colour = _SIGNS[finding.state]
            console.print(Text.assemble("  ", (sign, colour), f" {finding.subject}: {finding.detail}"))
            if finding.remedy:
                console.print(Text.assemble("      → ", (finding.remedy, "bold")))
    states = [finding.state for _, findings in found for finding in findings]
    errors, warnings = states.count(State.ERROR), states.count(State.WARNING)
    verdict = "pods can run here" if not errors else "pods cannot run here yet"
    console.print(Text(f"{verdict}: {_count(errors, 'error')}, {_count(warnings, 'warning')}", style="bold"))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
