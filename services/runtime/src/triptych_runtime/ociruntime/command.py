"""The command line of an OCI runtime (https://github.com/opencontainers/runtime-tools, runtime-spec)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych_errors import TriptychError
from triptych_linux import process, sealed
from triptych_linux.errors import ProcessFailed

from triptych_runtime.errors import RuntimeFailed


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """One OCI runtime as it is called.

    :param name: of its runtime handler, for messages.
    :param path: the binary.
    :param root: its state directory (`--root`), on tmpfs.
    :param systemd_cgroup: whether cgroupsPath has the systemd form.
    :param deadline: seconds for each call.
    """

    name: str
    path: str
    root: Path
    systemd_cgroup: bool = False
    deadline: float = 30.0

    @property
    def global_args(self) -> list[str]:
        """The arguments before the command."""
        args = ["--root", str(self.root)]
        return [*args, "--systemd-cgroup"] if self.systemd_cgroup else args

    @property
    def program(self) -> str:
        """By what path this process and its children start it: see `triptych_linux.sealed`."""
        return sealed.program(self.path)

    @property
    def argv(self) -> list[str]:
        """The binary and its global arguments, for anybody."""
        return [self.path, *self.global_args]

    async def call(self, *args: str, step: str, deadline: float | None = None) -> process.Completed:
        """Run one command.

        :raises RuntimeFailed: with the runtime's own message. :raises ProcessTimeout: at the deadline.
        """
        try:
            seconds = self.deadline if deadline is None else deadline
            argv = [self.program, *self.global_args, *args]
            return await process.run(argv, deadline=seconds, step=step)
        except ProcessFailed as error:
            raise RuntimeFailed(
                f"{step}: {readable(error.completed.stderr) or error.completed.how}"
            ) from error

    async def start(self, container_id: str) -> None:
        await self.call("start", container_id, step=f"{self.name} start")

    async def delete(self, container_id: str, *, deadline: float | None = None) -> None:
        """`delete --force`: kills what lives; an unknown container is no error."""
        try:
            step = f"{self.name} delete"
            await self.call("delete", "--force", container_id, step=step, deadline=deadline)
        except RuntimeFailed as error:
            if not _unknown(str(error)) and (self.root / container_id).exists():
                raise

    async def state(self, container_id: str) -> dict[str, Any] | None:
        """The runtime's `state` document, None for an unknown container."""
        try:
            done = await self.call("state", container_id, step=f"{self.name} state")
        except RuntimeFailed as error:
            if _unknown(str(error)):
                return None
            raise
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    async def bundle(self, container_id: str) -> tuple[Path | None, bool]:
        """Where a container's bundle is, None where that cannot be told, and whether it may be alive."""
        try:
            document = await self.state(container_id)
        except (TriptychError, ValueError):
            return None, True
        if document is None:
            return None, False
        bundle = document.get("bundle")
        return Path(bundle) if bundle else None, document.get("status") != "stopped"

    async def pause(self, container_id: str) -> None:
        await self.call("pause", container_id, step=f"{self.name} pause")

    async def resume(self, container_id: str) -> None:
        await self.call("resume", container_id, step=f"{self.name} resume")

    def known(self) -> list[str]:
        """IDs of the containers that it has state of."""
        try:
            return [entry.name for entry in self.root.iterdir() if entry.is_dir()]
        except FileNotFoundError:
            return []

    def exec_argv(
        self, container_id: str, process_file: Path, pid_file: Path, extra: Sequence[str] = ()
    ) -> list[str]:
        """The command line of `exec` with a process document."""
        files = ["--process", str(process_file), "--pid-file", str(pid_file)]
        return [self.program, *self.global_args, "exec", *files, *extra, container_id]


def _unknown(message: str) -> bool:
    return "does not exist" in message or "No such file or directory" in message


def readable(stderr: bytes) -> str:
    """The runtime's message for people: runc logs `time=... level=error msg="..."`, crun a plain line."""
    text = stderr.decode(errors="replace").strip()
    lines = []
    for line in text.splitlines():
        _, marker, rest = line.partition('level=error msg="')
        lines.append(rest.removesuffix('"').replace('\\"', '"') if marker else line)
    return "\n".join(dict.fromkeys(lines))[-4000:]
