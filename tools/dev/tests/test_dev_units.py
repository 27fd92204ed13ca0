"""systemd's own opinion of the units."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from triptych_dev.node.files import DEPLOY, NFTABLES_DROP_IN
from triptych_dev.node.manager import NAT, SERVICES, SOCKETS
from triptych_dev.node.places import WRITTEN_PREFIX

UNITS = DEPLOY / "systemd"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs Debian's package systemd"
)


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    """The units with programs that exist, as verify checks them."""
    program = tmp_path / "bin"
    program.mkdir()
    units = tmp_path / "units"
    units.mkdir()
    for unit in UNITS.iterdir():
        text = unit.read_text()
        for name in re.findall(rf"^ExecStart={WRITTEN_PREFIX}/bin/(\S+)", text, re.MULTILINE):
            (program / name).write_text("#!/bin/sh\n")
            (program / name).chmod(0o755)
        (units / unit.name).write_text(text.replace(f"{WRITTEN_PREFIX}/bin", str(program)))
    (units / NFTABLES_DROP_IN).parent.mkdir()
    shutil.copy(DEPLOY / "nftables/triptych.conf", units / NFTABLES_DROP_IN)
    (units / "nftables.service").write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    return units


@needs_systemd
def test_verify_finds_nothing(placed: Path) -> None:
    units = sorted(path for path in placed.iterdir() if path.is_file())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60
    )
    ours = [line for line in done.stderr.splitlines() if "triptych" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


def _exposure(unit: str) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNITS / unit],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    return float(found[1])


@needs_systemd
def test_exposure_is_as_the_security_page_says() -> None:
    page = (DEPLOY.parent / "docs/security.md").read_text()
    said = {
        name: float(figure)
        for name, figure in re.findall(r"\| `(triptych-\w+)\.service` \| ([0-9.]+) \|", page)
    }
    assert set(said) == {"triptych-image", "triptych-runtime", "triptych-streaming"}
    # Each release of systemd weighs a little otherwise, and a loaded unit otherwise than its file.
    for name, figure in said.items():
        assert _exposure(f"{name}.service") == pytest.approx(figure, abs=0.4), name


def test_the_list_of_units_is_whole() -> None:
    named = {*SERVICES, *SOCKETS, NAT, "triptych.slice", "triptych-streaming@.service"}
    assert {unit.name for unit in UNITS.iterdir()} == named


@pytest.mark.parametrize("service", sorted({path.name for path in UNITS.glob("*.service")} - {NAT}))
def test_each_service_is_restarted_watched_and_ordered(service: str) -> None:
    text = (UNITS / service).read_text()
    for line in (
        "Type=notify",
        "Restart=always",
        "RestartPreventExitStatus=78",
        "WatchdogSec=60s",
        "OOMScoreAdjust=-999",
        "Before=kubelet.service",
        "Slice=triptych.slice",
        "RuntimeDirectoryPreserve=yes",
    ):
        assert f"\n{line}\n" in text, line


@pytest.mark.parametrize("service", ["triptych-runtime.service", "triptych-streaming.service"])
def test_what_containers_would_inherit_is_not_set(service: str) -> None:
    """Seccomp filters, capability bounds and umasks pass through the OCI runtime into containers."""
    text = (UNITS / service).read_text()
    inherited = (
        "SystemCall",
        "CapabilityBoundingSet",
        "NoNewPrivileges",
        "UMask",
        "LockPersonality",
        "Restrict",
        "MemoryDenyWriteExecute",
        "ProtectKernel",
        "ProtectClock",
        "PrivateDevices",
    )
    assert not re.findall(rf"^(?:{'|'.join(inherited)})\w*=(?!no)", text, re.MULTILINE)
    assert "KillMode=process" in text


def test_the_streaming_address_may_come_after_its_socket() -> None:
    """Sockets are bound before the network is up; without it the daemon would serve 127.0.0.1 instead."""
    text = (UNITS / "triptych-streaming-http.socket").read_text()
    assert "\nFreeBind=yes\n" in text


def test_no_host_becomes_an_ipv6_router() -> None:
    """A kernel that forwards IPv6 drops the default route that router advertisements gave the host."""
    text = (DEPLOY / "sysctl.d/60-triptych.conf").read_text()
    assert not re.findall(r"^-?net\.ipv6\.", text, re.MULTILINE)


def test_the_masquerade_follows_nftables() -> None:
    """Whatever nftables.service does flushes all tables. tests/node has systemd do it."""
    text = (UNITS / NAT).read_text()
    for line in ("After=network.target nftables.service", "PartOf=nftables.service"):
        assert f"\n{line}\n" in text
    assert "\nReloadPropagatedFrom=nftables.service\n" in text
    loads = re.findall(r"^Exec(Start|Reload)=(.*)$", text, re.MULTILINE)
    assert [name for name, _ in loads] == ["Start", "Reload"] and loads[0][1] == loads[1][1]
    drop_in = (DEPLOY / "nftables/triptych.conf").read_text()
    assert re.search(rf"^ExecStartPost=-\S+ --no-block reload-or-restart {NAT}$", drop_in, re.MULTILINE)


def test_the_runtime_stays_in_the_mount_namespace_of_the_host() -> None:
    text = (UNITS / "triptych-runtime.service").read_text()
    separate = (
        "Protect|Private|ReadWritePaths|ReadOnlyPaths|InaccessiblePaths|TemporaryFileSystem|Bind|Root|Mount"
    )
    assert not re.findall(rf"^(?:{separate})\w*=", text, re.MULTILINE)
    assert "Delegate=yes" in text
