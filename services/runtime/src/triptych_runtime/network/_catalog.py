"""The networks that this node offers: loaded, checked against the plugins, and kept up to date."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
from triptych_errors import TriptychError

from triptych_runtime.network import _config, _podcidr, _versions
from triptych_runtime.network._chain import Chain
from triptych_runtime.network._config import Loaded, NetworkConfig
from triptych_runtime.network._plugins import Plugins
from triptych_runtime.network._watch import DirectoryWatch
from triptych_runtime.network.errors import ConfigInvalid, NetworkNotReady
from triptych_runtime.network.model import NetworkStatus

log = logging.getLogger(__name__)

NOT_READY = "NetworkPluginNotReady"
# Seconds between two tries of plugins that could not be asked; twice as many each time until then.
_LONGEST_PAUSE = 60.0
# How old an answer of STATUS may be before a status query has it asked again.
_STATUS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _View:
    """What is known at one moment; replaced as a whole.

    :param fault: why no pod can be attached; "" when one can.
    """

    networks: tuple[NetworkConfig, ...] = ()
    problems: tuple[str, ...] = ()
    fault: str = "cni config uninitialized: not loaded yet"


class Catalog:
    """Answers at once from what was read last; reads again when the kernel tells of a change."""

    def __init__(self, plugins: Plugins, chain: Chain, pod_cidr: Path) -> None:
        self._plugins = plugins
        self._chain = chain
        self._pod_cidr = pod_cidr
        self._subnets: tuple[str, ...] = ()
        self._view = _View()
        # What STATUS said of the networks in use, "" when content, and when.
        self._complaint = ""
        self._asked = 0.0
        self._wanted = asyncio.Event()
        self._reading = asyncio.Lock()

    @property
    def subnets(self) -> tuple[str, ...]:
        """The node's pod subnets, none when the kubelet told none."""
        return self._subnets

    @property
    def networks(self) -> tuple[NetworkConfig, ...]:
        """The networks in use.

        :raises NetworkNotReady: with the reason when there is none that works.
        """
        if self._view.fault:
            raise NetworkNotReady(self._view.fault, hint="install a network add-on for the node")
        return self._view.networks

    @property
    def usable(self) -> tuple[NetworkConfig, ...]:
        """`networks`, or none when not ready."""
        return () if self._view.fault else self._view.networks

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Load once, then watch."""
        self._subnets = await asyncio.to_thread(_podcidr.load, self._pod_cidr)
        watch = DirectoryWatch()
        await self._read(watch)
        tasks.create_task(self._follow(watch), name="network configuration")
        tasks.create_task(self._ask(), name="network status")

    async def set_subnets(self, text: str) -> None:
        """Take the node's pod subnets; nothing given changes nothing."""
        subnets = _podcidr.parse(text)
        if subnets and subnets != self._subnets:
            await asyncio.to_thread(_podcidr.save, self._pod_cidr, subnets)
            self._subnets = subnets
            log.info("took the pod CIDR", extra={"pod_cidr": ",".join(subnets)})
            await self.reload()

    def status(self) -> NetworkStatus:
        """The NetworkReady condition."""
        view = self._view
        if any(_versions.at_least(n.version, "1.1.0") for n in view.networks):
            self._wanted.set()
        fault = view.fault or self._complaint
        in_use = tuple((network.name, network.source) for network in view.networks)
        if fault:
            return NetworkStatus(False, NOT_READY, f"Network plugin returns error: {fault}", in_use)
        message = f"passed over: {'; '.join(view.problems)}" if view.problems else ""
        return NetworkStatus(True, "", message, in_use)

    async def reload(self) -> None:
        """Read the configuration and ask its plugins what they speak."""
        async with self._reading:
            await self._reload()

    async def _reload(self) -> None:
        settings = self._plugins.settings
        loaded = await asyncio.to_thread(_config.load, settings.conf_dirs, settings.max_conf_num)
        if not loaded.networks and settings.conf_template and self._subnets:
            loaded = await asyncio.to_thread(self._render, loaded)
        view = await self._negotiate(loaded)
        if view != self._view:
            extra = {"networks": [n.name for n in view.networks], "problems": list(view.problems)}
            if view.fault:
                log.warning("pod network is not ready", extra=extra | {"reason": view.fault})
            else:
                log.info("pod network is ready", extra=extra)
        self._view = view
        self._complaint, self._asked = "", 0.0
        self._wanted.set()

    def _render(self, loaded: Loaded) -> Loaded:
        try:
            template = Path(self._plugins.settings.conf_template)
            return Loaded((_podcidr.render(template, self._subnets),), loaded.problems)
        except ConfigInvalid as error:
            return Loaded((), (*loaded.problems, error.message))

    async def _negotiate(self, loaded: Loaded) -> _View:
        """Choose each network's version; a plugin that is missing makes the node not ready.

        The next file is not taken instead: it would put pods on a network that nobody meant while the
        right one's plugins are still being installed.
        """
        if not loaded.networks:
            return _View((), loaded.problems, self._nothing(loaded))
        networks: list[NetworkConfig] = []
        for network in loaded.networks:
            try:
                networks.append(await self._agree(network))
            except TriptychError as error:
                fault = f"cni config {network.source} cannot be used: {error}"
                return _View(loaded.networks, loaded.problems, fault)
        return _View(tuple(networks), loaded.problems, "")

    async def _agree(self, network: NetworkConfig) -> NetworkConfig:
        spoken = [await self._plugins.versions(plugin.type) for plugin in network.plugins]
        version = _versions.best(network.versions, spoken)
        if version is None:
            told = ", ".join(
                f"{plugin.type} {'/'.join(sorted(versions, key=_sortable)) or 'none'}"
                for plugin, versions in zip(network.plugins, spoken, strict=True)
            )
            wanted = "/".join(network.versions)
            raise ConfigInvalid(f"its cniVersion is {wanted}, its plugins speak: {told}")
        return msgspec.structs.replace(network, version=version)

    def _nothing(self, loaded: Loaded) -> str:
        settings = self._plugins.settings
        text = f"cni config uninitialized: no CNI configuration in {', '.join(settings.conf_dirs)}"
        if settings.conf_template and not self._subnets:
            text += f", and {settings.conf_template} waits for the pod CIDR"
        return text + (f" ({'; '.join(loaded.problems)})" if loaded.problems else "")

    async def _read(self, watch: DirectoryWatch) -> None:
        """Read what is watched; what was read may name further directories to watch."""
        self._arm(watch)
        await self.reload()
        while self._arm(watch):
            await self.reload()

    def _arm(self, watch: DirectoryWatch) -> bool:
        settings = self._plugins.settings
        below = [str(Path(n.source).parent / n.name) for n in self._view.networks]
        inside = [path for path in below if Path(path).is_dir()]
        template = [str(Path(settings.conf_template).parent)] if settings.conf_template else []
        return watch.arm([*settings.conf_dirs, *settings.bin_dirs, *inside, *template])

    async def _follow(self, watch: DirectoryWatch) -> None:
        """Read again after a change, and after a while where plugins could not be asked: they may have had
        no memory or no time, and no directory tells when they have."""
        pause = self._plugins.settings.retry_seconds
        try:
            while True:
                troubled = bool(self._view.networks and self._view.fault)
                pause = min(2 * pause, _LONGEST_PAUSE) if troubled else self._plugins.settings.retry_seconds
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause if troubled else None):
                        await watch.changed()
                try:
                    await self._read(watch)
                except OSError:
                    log.exception("network configuration not read; the former one stays")
        finally:
            watch.close()

    async def _ask(self) -> None:
        """STATUS of the networks in use, when somebody wants to know and the last answer is old."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if time.monotonic() - self._asked < _STATUS_SECONDS and self._asked:
                continue
            view = self._view
            complaint = ""
            for network in view.networks:
                if view.fault or not _versions.at_least(network.version, "1.1.0"):
                    continue
                try:
                    await self._chain.status(network)
                except TriptychError as error:
                    complaint = f"network {network.name}: {error}"
            if view is self._view:
                self._complaint, self._asked = complaint, time.monotonic()


def _sortable(version: str) -> tuple[int, ...]:
    try:
        return _versions.number(version)
    except ValueError:
        return ()
