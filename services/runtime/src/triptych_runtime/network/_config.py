"""Network configuration: parsing lists and single plugin configurations (CNI specification, section 1)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from triptych_runtime.network import _versions
from triptych_runtime.network.errors import ConfigInvalid

_SUFFIXES = (".conf", ".conflist", ".json")
_MAX_BYTES = 1 << 20


class PluginConfig(msgspec.Struct, frozen=True):
    """One plugin of a list.

    :param conf: its configuration as written, without `capabilities`.
    :param capabilities: names of the capability arguments that it wants.
    """

    type: str
    conf: dict[str, Any]
    capabilities: tuple[str, ...] = ()


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A network: the plugins that attach a pod to it, in order.

    :param versions: those that the file offers.
    :param version: the one in use, chosen when the plugins were asked; the newest offered until then.
    :param source: the file, for messages.
    """

    name: str
    source: str
    versions: tuple[str, ...]
    version: str
    plugins: tuple[PluginConfig, ...]
    disable_check: bool = False
    disable_gc: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the configuration directories hold.

    :param problems: one line for each file that was passed over.
    """

    networks: tuple[NetworkConfig, ...]
    problems: tuple[str, ...]


def load(directories: Sequence[str], limit: int) -> Loaded:
    """Read the first `limit` usable networks, by file name within each directory; 0 for all. Blocking."""
    networks: list[NetworkConfig] = []
    problems: list[str] = []
    for path in _files(directories, problems):
        if limit and len(networks) >= limit:
            break
        try:
            config = read(path)
        except ConfigInvalid as error:
            problems.append(_printable(error.message))
            continue
        if any(config.name == other.name for other in networks):
            problem = f"{path}: name: another file has a network named {config.name!r}"
            problems.append(_printable(problem))
        else:
            networks.append(config)
    return Loaded(tuple(networks), tuple(problems))


def _printable(text: str) -> str:
    """Text that logs and gRPC take, of a file whose name need not be UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _files(directories: Sequence[str], problems: list[str]) -> Iterable[Path]:
    for directory in directories:
        try:
            with os.scandir(directory) as entries:
                names = sorted(e.name for e in entries if e.name.endswith(_SUFFIXES) and not e.is_dir())
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{directory}: {error.strerror}")
            continue
        for name in names:
            yield Path(directory, name)


def read(path: Path) -> NetworkConfig:
    """Read one file; a `.conflist` is a list, another one a single plugin's configuration.

    :raises ConfigInvalid: naming the file and the key.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigInvalid(f"{path}: {error.strerror}") from error
    if len(raw) > _MAX_BYTES:
        raise ConfigInvalid(f"{path}: larger than {_MAX_BYTES} bytes")
    if path.suffix == ".conflist":
        return parse_list(raw, path)
    conf = _object(raw, path)
    return _build(conf, [conf], path)


def parse_list(raw: bytes, path: Path) -> NetworkConfig:
    """Parse a configuration list; plugins may also lie in files of their own (specification 1.1).

    :raises ConfigInvalid: naming the file and the key.
    """
    conf = _object(raw, path)
    plugins = conf.get("plugins", [])
    if not isinstance(plugins, list):
        raise ConfigInvalid(f"{path}: plugins: expected a list")
    plugins = list(plugins)
    name = conf.get("name")
    if not _flag(conf, "loadOnlyInlinedPlugins", path) and isinstance(name, str) and "/" not in name:
        plugins += _plugins_of_directory(path.parent / name)
    if not plugins:
        raise ConfigInvalid(f"{path}: plugins: expected at least one")
    return _build(conf, plugins, path)


def _plugins_of_directory(directory: Path) -> list[dict[str, Any]]:
    try:
        names = sorted(entry for entry in os.listdir(directory) if entry.endswith(".conf"))
        return [_object((directory / name).read_bytes(), directory / name) for name in names]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigInvalid(f"{directory}: {error.strerror}") from error


def _object(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigInvalid(f"{path}: not a JSON object: {error}") from None


def _build(conf: dict[str, Any], plugins: list[Any], path: Path) -> NetworkConfig:
    name = conf.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigInvalid(f"{path}: name: expected the network's name")
    versions = _offered(conf, path)
    return NetworkConfig(
        name=name,
        source=_printable(str(path)),
        versions=versions,
        version=versions[-1],
        plugins=tuple(_plugin(entry, index, path) for index, entry in enumerate(plugins)),
        disable_check=_flag(conf, "disableCheck", path),
        disable_gc=_flag(conf, "disableGC", path),
    )


def _offered(conf: dict[str, Any], path: Path) -> tuple[str, ...]:
    """The versions of the file that this runtime speaks, oldest first."""
    several = conf.get("cniVersions", [])
    if not isinstance(several, list):
        raise ConfigInvalid(f"{path}: cniVersions: expected a list")
    one = conf.get("cniVersion") or (_versions.UNNAMED if not several else None)
    named = [*several, *([one] if one is not None else [])]
    for version in named:
        try:
            _versions.number(version if isinstance(version, str) else "")
        except ValueError:
            raise ConfigInvalid(f"{path}: cniVersion: {version!r} is not a version such as 1.0.0") from None
    usable = sorted({v for v in named if v in _versions.SUPPORTED}, key=_versions.number)
    if not usable:
        raise ConfigInvalid(
            f"{path}: cniVersion: {', '.join(named)} is not supported, {_versions.LATEST} is the newest"
        )
    return tuple(usable)


def _plugin(entry: Any, index: int, path: Path) -> PluginConfig:
    where = f"{path}: plugins[{index}]"
    if not isinstance(entry, dict):
        raise ConfigInvalid(f"{where}: expected an object")
    kind = entry.get("type")
    if not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
        raise ConfigInvalid(f"{where}.type: expected the name of a plugin")
    capabilities = entry.get("capabilities") or {}
    if not isinstance(capabilities, dict):
        raise ConfigInvalid(f"{where}.capabilities: expected an object")
    conf = {key: value for key, value in entry.items() if key != "capabilities"}
    return PluginConfig(kind, conf, tuple(k for k, wanted in capabilities.items() if wanted is True))


def _flag(conf: dict[str, Any], key: str, path: Path) -> bool:
    """A boolean, which libcni also takes as text."""
    value = conf.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ConfigInvalid(f"{path}: {key}: expected true or false")
    return value
