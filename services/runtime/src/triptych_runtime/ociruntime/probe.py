"""Finding out whether an OCI runtime works on this host, and what it can do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from triptych_errors import TriptychError
from triptych_linux import process

from triptych_runtime.ociruntime.command import OciRuntime, readable

_DEADLINE = 10.0


async def version(path: str) -> str:
    """What `--version` prints."""
    done = await process.run([path, "--version"], deadline=_DEADLINE, step=f"{path} --version")
    return done.stdout.decode(errors="replace").strip()


async def features(path: str) -> bytes:
    """The document of `features` (runtime-spec features.md), b"" where the runtime has no such command."""
    done = await process.run([path, "features"], deadline=_DEADLINE, step=f"{path} features", check=False)
    return done.stdout if done.returncode == 0 else b""


async def refusal(runtime: OciRuntime, cgroups_path: str, scratch: Path) -> str:
    """Why the runtime cannot make a container on this host, "" when it can.

    The only proof is to make one: crun 1.8 refuses some hybrid cgroup hierarchies, and which ones depends
    on what is mounted where. The container gets a static init that is never started.
    """
    binary = next((b for b in map(shutil.which, ("catatonit", "tini-static", "busybox")) if b), None)
    if binary is None:
        return ""
    bundle = await asyncio.to_thread(_write_bundle, scratch, binary, cgroups_path)
    name = f"probe-{os.getpid()}-{runtime.name}"
    try:
        step = f"{runtime.name} create"
        command = [*runtime.argv, "create", "--bundle", str(bundle), name]
        try:
            done = await process.run(command, deadline=_DEADLINE, step=step, check=False)
        except TriptychError as error:
            return str(error)
        if done.returncode != 0:
            return readable(done.stderr) or done.how
        return ""
    finally:
        with contextlib.suppress(TriptychError):
            await runtime.delete(name, deadline=_DEADLINE)
        await asyncio.to_thread(shutil.rmtree, bundle, ignore_errors=True)


def _write_bundle(scratch: Path, binary: str, cgroups_path: str) -> Path:
    scratch.mkdir(parents=True, exist_ok=True)
    bundle = Path(tempfile.mkdtemp(prefix="probe-", dir=scratch))
    root = bundle / "rootfs"
    for name in ("proc", "dev"):
        (root / name).mkdir(parents=True)
    (root / "init").touch()
    document = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/init", "true"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": []},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            # /run is nodev under systemd, and noexec after Debian's initramfs: neither the runtime's own
            # devices nor a program would do on the bundle.
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/init", "type": "bind", "source": binary, "options": ["bind", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
            "cgroupsPath": cgroups_path,
        },
    }
    (bundle / "config.json").write_text(json.dumps(document))
    return bundle
