"""Which container the kernel's OOM killer struck, also where its cgroup is gone before anybody can look.

systemd removes a scope as soon as its last process ends, and the scope's counters with it. On cgroup v2 the
counters of the pod's cgroup include those of its containers and stay: what they have more than is explained
by containers that live, and by those that ended before, is the container that just ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from triptych_runtime.cgroups.handle import Cgroup
from triptych_runtime.cgroups.layout import Mode


class OomLedger:
    """Accounts for OOM kills by pod. Reads a few small files, so it may be used on the event loop.

    :param resolve: makes a handle from a `linux.cgroupsPath`.
    :param at: makes a handle from a path in the hierarchies.
    """

    def __init__(self, resolve: Callable[[str], Cgroup], at: Callable[[str], Cgroup]) -> None:
        self._resolve = resolve
        self._at = at
        self._running: dict[str, dict[str, Cgroup]] = {}
        self._explained: dict[str, int] = {}

    def add(self, cgroups_path: str) -> None:
        """A container runs; called when its cgroup exists, and again for each by a new daemon."""
        group = self._resolve(cgroups_path)
        pod = os.path.dirname(group.path)
        running = self._running.setdefault(pod, {})
        running[cgroups_path] = group
        if pod not in self._explained:
            self._explained[pod] = (self._pod_kills(pod) or 0) - self._living(pod)

    def take(self, cgroups_path: str) -> int | None:
        """A container ended: how many of its processes were killed, None when nobody can tell.

        It is forgotten; a second call knows what the cgroup itself still says.
        """
        group = self._resolve(cgroups_path)
        pod = os.path.dirname(group.path)
        known = self._running.get(pod, {}).pop(cgroups_path, None) is not None
        own = group.oom_kills()
        if not known:
            return own
        if own is None:
            own = self._unexplained(pod)
        self._explained[pod] += own or 0
        if not self._running[pod]:
            del self._running[pod], self._explained[pod]
        return own

    def _unexplained(self, pod: str) -> int | None:
        total = self._pod_kills(pod)
        if total is None:
            return None
        more = max(total - self._explained[pod] - self._living(pod), 0)
        if any(group.oom_kills() is None for group in self._running[pod].values()):
            # Another one is gone as well and will ask next; one kill is enough to tell.
            return min(more, 1)
        return more

    def _living(self, pod: str) -> int:
        return sum(group.oom_kills() or 0 for group in self._running[pod].values())

    def _pod_kills(self, pod: str) -> int | None:
        group = self._at(pod)
        # v1 counts each cgroup alone, and the root has no counter.
        return group.oom_kills() if group.mode is Mode.UNIFIED else None
