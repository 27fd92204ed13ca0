"""Running the plugins of a network in order (CNI specification, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from triptych_errors import TriptychError
from triptych_linux.namespaces import is_pinned

from triptych_runtime.network import _arguments, _results, _versions
from triptych_runtime.network._config import NetworkConfig, PluginConfig
from triptych_runtime.network._plugins import Plugins
from triptych_runtime.network._records import Attachment
from triptych_runtime.network.model import PodAttachment

# Keys that give a plugin of the setting `idle_plugins` work for every pod: fixed limits of bandwidth.
_WORK = ("ingressRate", "egressRate")


class Chain:
    """The operations on a network."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins

    async def add(self, pod: PodAttachment, attachment: Attachment) -> dict[str, Any]:
        """ADD of every plugin; returns the last one's result.

        :raises TriptychError: of the first plugin that failed; those before it are not undone.
        """
        config = attachment.config
        environment = _environment(pod, attachment.ifname, pod.netns)
        result: dict[str, Any] | None = None
        for plugin in self._busy(attachment):
            request = _request(config, plugin, attachment.arguments)
            if result is not None:
                request["prevResult"] = _results.for_version(result, config.version)
            deadline = self._plugins.settings.setup_deadline
            raw = await self._plugins.call("ADD", plugin.type, request, environment, deadline=deadline)
            result = _results.decode(raw, plugin.type)
            result.setdefault("cniVersion", config.version)
        return result or {"cniVersion": config.version}

    async def delete(
        self, pod: PodAttachment, attachment: Attachment, netns: Path | None
    ) -> list[TriptychError]:
        """DEL of every plugin, last first, each whatever became of the others; returns what failed."""
        config = attachment.config
        environment = _environment(pod, attachment.ifname, netns)
        failures: list[TriptychError] = []
        for plugin in reversed(self._busy(attachment)):
            request = _request(config, plugin, attachment.arguments)
            deadline = self._plugins.settings.teardown_deadline
            try:
                if attachment.result is not None and _versions.at_least(config.version, "0.4.0"):
                    request["prevResult"] = _results.for_version(attachment.result, config.version)
                await self._plugins.call("DEL", plugin.type, request, environment, deadline=deadline)
            except TriptychError as error:
                failures.append(error)
        return failures

    async def check(self, pod: PodAttachment, attachment: Attachment) -> None:
        """CHECK of every plugin; nothing where the version or the configuration has no CHECK.

        :raises TriptychError: of the first plugin that is not content.
        """
        config = attachment.config
        if config.disable_check or not _versions.at_least(config.version, "0.4.0"):
            return
        environment = _environment(pod, attachment.ifname, pod.netns)
        for plugin in self._busy(attachment):
            request = _request(config, plugin, attachment.arguments)
            request["prevResult"] = _results.for_version(attachment.result or {}, config.version)
            deadline = self._plugins.settings.query_deadline
            await self._plugins.call("CHECK", plugin.type, request, environment, deadline=deadline)

    async def status(self, config: NetworkConfig) -> None:
        """STATUS of every plugin (1.1).

        :raises TriptychError: of the first plugin that could not serve ADD now.
        """
        for plugin in config.plugins:
            request = _request(config, plugin, {})
            deadline = self._plugins.settings.query_deadline
            await self._plugins.call("STATUS", plugin.type, request, {}, deadline=deadline)

    async def collect(self, config: NetworkConfig, valid: Iterable[tuple[str, str]]) -> list[TriptychError]:
        """GC of every plugin (1.1); returns what failed.

        :param valid: (sandbox ID, interface name) of every attachment that is to stay.
        """
        attachments = [{"containerID": sandbox_id, "ifname": ifname} for sandbox_id, ifname in valid]
        failures: list[TriptychError] = []
        for plugin in config.plugins:
            request = _request(config, plugin, {}) | {"cni.dev/valid-attachments": attachments}
            deadline = self._plugins.settings.query_deadline
            try:
                await self._plugins.call("GC", plugin.type, request, {}, deadline=deadline)
            except TriptychError as error:
                failures.append(error)
        return failures

    def _busy(self, attachment: Attachment) -> Sequence[PluginConfig]:
        """The plugins that have something to do for this pod.

        portmap without port mappings passes its input on at ADD, but at DEL runs iptables for 40 ms to
        remove what was never there. Such plugins are named by the setting; the first one always runs.
        """
        idle = self._plugins.settings.idle_plugins
        first, *others = attachment.config.plugins
        return [first, *(p for p in others if p.type not in idle or _has_work(p, attachment.arguments))]


def _has_work(plugin: PluginConfig, arguments: dict[str, Any]) -> bool:
    """Whether a capability argument is there for it, or it has none to wait for, or it works without."""
    waits = bool(plugin.capabilities) and not any(key in plugin.conf for key in _WORK)
    return not waits or any(name in arguments for name in plugin.capabilities)


def _request(config: NetworkConfig, plugin: PluginConfig, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a plugin reads ("Deriving request configuration from plugin configuration")."""
    request = {key: value for key, value in plugin.conf.items() if not key.startswith("cni.dev/")}
    request |= {"cniVersion": config.version, "name": config.name}
    given = {name: arguments[name] for name in plugin.capabilities if name in arguments}
    if given:
        request["runtimeConfig"] = given
    return request


def _environment(pod: PodAttachment, ifname: str, netns: Path | None) -> dict[str, str]:
    return {
        "CNI_CONTAINERID": pod.sandbox_id,
        "CNI_IFNAME": ifname,
        "CNI_NETNS": str(netns) if netns is not None else "",
        "CNI_ARGS": _arguments.cni_args(pod),
    }


def living(netns: Path | None) -> Path | None:
    """`netns` if a namespace is pinned there, else None: plugins then clean up what is outside of it."""
    return netns if netns is not None and is_pinned(netns) else None
