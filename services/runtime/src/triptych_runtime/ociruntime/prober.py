"""Probing the runtime handlers, and again those that cannot be used: a probe may just have been unlucky."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from triptych_errors import TriptychError

from triptych_runtime.ociruntime import probe
from triptych_runtime.ociruntime.command import OciRuntime
from triptych_runtime.ociruntime.handlers import Handler, Handlers
from triptych_runtime.ociruntime.probe_cache import ProbeCache, Probed
from triptych_runtime.spec import HandlerFeatures

log = logging.getLogger(__name__)

#: Seconds before a handler that cannot be used is looked at again; twice as many each time.
_PAUSE = 5.0
_LONGEST_PAUSE = 600.0


@dataclass(frozen=True, slots=True)
class HandlerConfig:
    """What the configuration says of a handler.

    :param path: a binary's name or absolute path.
    :param enabled: whether pods may ask for it; what runs with it is cleaned up after either way.
    """

    path: str
    root: Path
    enabled: bool = True


class Prober:
    """Probes handlers.

    :param cgroups_path: where the containers of the probes live.
    :param scratch: directory for their bundles.
    :param deadline: seconds for each call of an OCI runtime, once it is in use. A probe is shorter: the
        daemon waits for it before it takes changes.
    """

    def __init__(
        self,
        configs: Mapping[str, HandlerConfig],
        *,
        systemd_cgroup: bool,
        cgroups_path: str,
        scratch: Path,
        deadline: float,
        cache: ProbeCache,
    ) -> None:
        self._configs = dict(configs)
        self._systemd_cgroup = systemd_cgroup
        self._cgroups_path = cgroups_path
        self._scratch = scratch
        self._deadline = deadline
        self._cache = cache
        self._asked = asyncio.Event()

    async def probe(self, handlers: Handlers) -> None:
        """Probe every configured handler that is not known to work."""
        names = [name for name in self._configs if not handlers.usable(name)]
        if not names:
            return
        await self._cache.open()
        found = await asyncio.gather(*(self._one(name) for name in names))
        await self._cache.close()
        before = {name: handlers.find(name) for name in names}
        for handler in found:
            handlers.put(handler)
        for handler in found:
            known = before[handler.name]
            if known is None or known.problem != handler.problem:
                _tell(handler, handlers.default)

    def soon(self) -> None:
        """Have what cannot be used looked at at once."""
        self._asked.set()

    async def keep_probing(self, handlers: Handlers) -> None:
        """For ever: probe what cannot be used again, after a while and when asked to."""
        pause = _PAUSE
        while True:
            wanted = any(c.enabled and not handlers.usable(name) for name, c in self._configs.items())
            try:
                async with asyncio.timeout(pause if wanted else None):
                    await self._asked.wait()
                pause = _PAUSE
            except TimeoutError:
                pause = min(2 * pause, _LONGEST_PAUSE)
            self._asked.clear()
            try:
                await self.probe(handlers)
            except (TriptychError, OSError) as error:
                log.warning("runtime handlers could not be probed", extra={"error": str(error)})

    async def _one(self, name: str) -> Handler:
        config = self._configs[name]
        path = shutil.which(config.path) or config.path
        runtime = OciRuntime(name, path, config.root, self._systemd_cgroup, self._deadline)
        if not config.enabled:
            return Handler(name, runtime, problem="the configuration turns it off")
        found, problem = self._cache.get(path, self._systemd_cgroup), ""
        try:
            runtime.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            if found is None:
                found = Probed(*await asyncio.gather(probe.version(path), probe.features(path)))
                problem = await probe.refusal(runtime, f"{self._cgroups_path}probe-{name}", self._scratch)
                if not problem:
                    self._cache.put(path, self._systemd_cgroup, found)
        except (TriptychError, OSError) as error:
            problem = str(error)
        return _handler(runtime, found or Probed("", b""), problem)


def _tell(handler: Handler, default: str) -> None:
    extra = {"handler": handler.name, "version": handler.version, "default": handler.name == default}
    if handler.problem:
        log.warning("runtime handler cannot be used", extra={**extra, "problem": handler.problem})
    else:
        log.info("runtime handler works", extra=extra)


def _handler(runtime: OciRuntime, found: Probed, problem: str) -> Handler:
    version, document = found.version, found.features
    features = (
        HandlerFeatures.of_features(document, version) if document else HandlerFeatures.of_version(version)
    )
    # It says so in its features, crun also in its version.
    checkpoint = b'"org.opencontainers.runc.checkpoint.enabled": "true"' in document or "+CRIU" in version
    return Handler(runtime.name, runtime, version.partition("\n")[0], features, checkpoint, problem)
