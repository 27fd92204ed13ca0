"""Named fault points: where the kill tests end the daemon.

`fault("run_pod_sandbox.network")` does nothing unless the environment names that point:
TRIPTYCH_FAULT=run_pod_sandbox.network ends the process there as `kill -9` would, and
TRIPTYCH_FAULT=fail:run_pod_sandbox.network makes the step fail, which tests the undo.
"""

from __future__ import annotations

import os
import signal

from triptych_runtime.errors import RuntimeFailed

_armed = os.environ.get("TRIPTYCH_FAULT", "")
#: Every point that was ever passed in this process, for the test that walks through all of them.
_trace = os.environ.get("TRIPTYCH_FAULT_TRACE", "")


def fault(point: str) -> None:
    """Pass the fault point `point`."""
    if _trace:
        with open(_trace, "a", encoding="utf-8") as file:
            file.write(point + "\n")
    if not _armed:
        return
    if _armed == point:
        os.kill(os.getpid(), signal.SIGKILL)
    if _armed == "fail:" + point:
        raise RuntimeFailed(f"fault point {point}")
