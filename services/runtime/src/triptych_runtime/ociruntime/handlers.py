"""Runtime handlers: names that a pod may ask for, each an OCI runtime probed at start."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triptych_errors import TriptychError

from triptych_runtime.errors import HandlerUnusable, UnknownHandler
from triptych_runtime.ociruntime import probe
from triptych_runtime.ociruntime.command import OciRuntime
from triptych_runtime.ociruntime.probe_cache import ProbeCache, Probed
from triptych_runtime.spec import HandlerFeatures

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handler:
    """A runtime handler.

    :param version: the first line of its `--version`.
    :param checkpoint: it can checkpoint and restore with CRIU.
    :param problem: why it cannot be used, "" when it can.
    """

    name: str
    runtime: OciRuntime
    version: str = ""
    features: HandlerFeatures = field(default_factory=HandlerFeatures)
    checkpoint: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class HandlerConfig:
    """What the configuration says of a handler.

    :param path: a binary's name or absolute path.
    :param enabled: whether pods may ask for it; what runs with it is cleaned up after either way.
    """

    path: str
    root: Path
    enabled: bool = True


class Handlers:
    """All handlers that the configuration names; "" is the default one."""

    def __init__(self, handlers: Mapping[str, Handler], default: str) -> None:
        self._handlers = dict(handlers)
        self.default = default

    def all(self) -> list[Handler]:
        return list(self._handlers.values())

    def get(self, name: str) -> Handler:
        """The handler of a name, usable.

        :raises UnknownHandler: when it is not configured. :raises HandlerUnusable: when it cannot run.
        """
        handler = self._handlers.get(name or self.default)
        if handler is None:
            raise UnknownHandler(name, sorted(self._handlers))
        if handler.problem:
            raise HandlerUnusable(f"runtime handler {handler.name!r} cannot be used: {handler.problem}")
        return handler

    def find(self, name: str) -> Handler | None:
        """The handler of a name, usable or not; for cleaning up."""
        return self._handlers.get(name or self.default)

    @classmethod
    async def probe(
        cls,
        configs: Mapping[str, HandlerConfig],
        *,
        default: str,
        systemd_cgroup: bool,
        cgroups_path: str,
        scratch: Path,
        deadline: float,
        cache: ProbeCache,
    ) -> Handlers:
        """Probe every configured runtime, and choose the default: the named one, else the first that works.

        :param cgroups_path: where the containers of the probes live.
        """

        async def one(name: str, config: HandlerConfig) -> Handler:
            runtime = OciRuntime(
                name, shutil.which(config.path) or config.path, config.root, systemd_cgroup, deadline
            )
            if not config.enabled:
                return Handler(name, runtime, problem="the configuration turns it off")
            return await _probe(runtime, f"{cgroups_path}probe-{name}", scratch, cache)

        await cache.open()
        found = await asyncio.gather(*(one(name, config) for name, config in configs.items()))
        await cache.close()
        handlers = {handler.name: handler for handler in found}
        usable = [handler.name for handler in found if not handler.problem]
        chosen = default or next(iter(usable), next(iter(handlers), ""))
        for handler in found:
            extra = {"handler": handler.name, "version": handler.version, "default": handler.name == chosen}
            if handler.problem:
                log.warning("runtime handler cannot be used", extra={**extra, "problem": handler.problem})
            else:
                log.info("runtime handler works", extra=extra)
        return cls(handlers, chosen)


async def _probe(runtime: OciRuntime, cgroups_path: str, scratch: Path, cache: ProbeCache) -> Handler:
    runtime.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    found, problem = cache.get(runtime.path, runtime.systemd_cgroup), ""
    if found is None:
        try:
            texts = await asyncio.gather(probe.version(runtime.path), probe.features(runtime.path))
            found = Probed(*texts)
            problem = await probe.refusal(runtime, cgroups_path, scratch)
        except TriptychError as error:
            return Handler(runtime.name, runtime, problem=str(error))
        if not problem:
            cache.put(runtime.path, runtime.systemd_cgroup, found)
    features = _features(found.version, found.features)
    checkpoint = _checkpoint(found.version, found.features)
    return Handler(runtime.name, runtime, found.version.partition("\n")[0], features, checkpoint, problem)


def _features(version: str, document: bytes) -> HandlerFeatures:
    return (
        HandlerFeatures.of_features(document, version) if document else HandlerFeatures.of_version(version)
    )


def _checkpoint(version: str, document: bytes) -> bool:
    """Whether the runtime was built with CRIU: it says so in its features, crun also in its version."""
    return b'"org.opencontainers.runc.checkpoint.enabled": "true"' in document or "+CRIU" in version
