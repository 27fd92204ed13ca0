"""Probing runtime handlers, and probing those again that failed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from triptych_runtime.errors import HandlerUnusable
from triptych_runtime.ociruntime import HandlerConfig, Handlers, ProbeCache, Prober, probe, prober


class Kept:
    """What the probe cache keeps."""

    text = ""
    failures = 0

    async def load(self) -> str:
        if self.failures:
            self.failures -= 1
            raise OSError("too many open files")
        return self.text

    async def save(self, text: str) -> None:
        self.text = text


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def probes(tmp_path: Path, kept: Kept) -> Prober:
    """Of crun, which works once the file `well` is there; runc, which works; and one that is turned off."""
    well = tmp_path / "well"
    for name, condition in (("crun", f"[ -e {well} ] || exit 1"), ("runc", "")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{condition}\n[ $1 = features ] && exit 1\necho {name} version 1\n")
        program.chmod(0o755)
    return Prober(
        {
            name: HandlerConfig(str(tmp_path / program), tmp_path / "oci" / name, enabled=name != "off")
            for name, program in (("crun", "crun"), ("runc", "runc"), ("off", "runc"))
        },
        systemd_cgroup=False,
        cgroups_path="/triptych/",
        scratch=tmp_path / "probe",
        deadline=10,
        cache=ProbeCache(kept.load, kept.save),
    )


async def test_the_default_is_the_first_that_works(probes: Prober, tmp_path: Path) -> None:
    handlers = Handlers({}, "")
    await probes.probe(handlers)
    assert [handler.name for handler in handlers.all()] == ["crun", "runc", "off"]
    assert handlers.default == "runc"
    assert handlers.get("").version == "runc version 1"
    for name in ("crun", "off"):
        with pytest.raises(HandlerUnusable):
            handlers.get(name)
    assert handlers.known("crun").problem
    (tmp_path / "well").touch()
    await probes.probe(handlers)
    assert [handler.name for handler in handlers.all()] == ["crun", "runc", "off"]
    assert handlers.default == "crun"
    assert handlers.get("crun").version == "crun version 1"


async def test_the_configured_default_stays_though_it_does_not_work(probes: Prober) -> None:
    handlers = Handlers({}, "crun")
    await probes.probe(handlers)
    assert handlers.default == "crun"
    with pytest.raises(HandlerUnusable):
        handlers.get("")


@pytest.mark.parametrize("asked", [False, True])
async def test_a_handler_that_fails_is_probed_again(
    probes: Prober, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr(prober, "_PAUSE", 1000.0 if asked else 0.01)
    handlers = Handlers({}, "")
    await probes.probe(handlers)
    kept.failures = 1
    task = asyncio.create_task(probes.keep_probing(handlers))
    (tmp_path / "well").touch()
    async with asyncio.timeout(60):
        for _ in range(2 * asked):
            probes.soon()
            while kept.failures:
                await asyncio.sleep(0.01)
        while handlers.default != "crun":
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_handler_that_hangs_does_not_hold_up_the_start_for_long(
    tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_DEADLINE", 0.5)
    monkeypatch.setattr("shutil.which", lambda name: name if "/" in name else "/bin/true")
    program = tmp_path / "hangs"
    program.write_text(
        "#!/bin/sh\ncase $1 in --version) echo 1;; features) exit 1;; *) exec sleep 600;; esac\n"
    )
    program.chmod(0o755)
    hangs = Prober(
        {"hangs": HandlerConfig(str(program), tmp_path / "oci")},
        systemd_cgroup=False,
        cgroups_path="/triptych/",
        scratch=tmp_path / "probe",
        deadline=600,
        cache=ProbeCache(kept.load, kept.save),
    )
    handlers = Handlers({}, "")
    async with asyncio.timeout(60):
        await hangs.probe(handlers)
    assert "0.5 s" in handlers.known("hangs").problem
