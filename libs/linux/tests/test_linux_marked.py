"""Processes found by a variable of their environment."""

from __future__ import annotations

import os
import subprocess

from triptych_dev.patience import PATIENCE
from triptych_linux import marked
from triptych_linux.pidfd import ProcessIdentity


async def test_what_has_the_variable_is_killed_with_what_it_started() -> None:
    environment = {"PATH": os.environ["PATH"], "TRIPTYCH_MARK": "one"}
    # The child tells of itself: in the middle of an exec a process shows no environment.
    script = "exec 3<&0; sh -c 'echo $$; read end <&3' & wait"
    pipe = subprocess.PIPE
    marked_shell = subprocess.Popen(["sh", "-c", script], env=environment, stdin=pipe, stdout=pipe)
    other = subprocess.Popen(["sleep", "1000"], env=environment | {"TRIPTYCH_MARK": "one too"})
    try:
        assert marked_shell.stdout is not None
        child = ProcessIdentity.of(int(marked_shell.stdout.readline()))
        both = {marked_shell.pid, child.pid}
        found = marked.find("TRIPTYCH_MARK", ["none", "one"], lambda _: True)
        assert {identity.pid for identity in found} == both
        assert not list(marked.find("TRIPTYCH_MARK", ["one"], lambda pid: pid not in both))
        killed = await marked.kill("TRIPTYCH_MARK", ["one"], lambda _: True, deadline=30 * PATIENCE)
        assert {identity.pid for identity in killed} == both
        assert not child.alive()
        assert marked_shell.wait(30 * PATIENCE) == -9
        assert other.poll() is None
        assert await marked.kill("TRIPTYCH_MARK", ["one"], lambda _: True, deadline=30 * PATIENCE) == []
    finally:
        for process in (marked_shell, other):
            process.kill()
            process.communicate()
