"""Who adjusted what: two plugins that want the same of one container contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, TypeVar

from nri.v1alpha1 import nri_pb2

from triptych_runtime.errors import PluginConflict

#: A field, and for one of many entries (an annotation, a mount) its key; None for a field of one value.
Claim: TypeAlias = tuple[nri_pb2.Field.ValueType, str | None]

_Value = TypeVar("_Value")
_MARK: Final = "-"


def unmark(key: str) -> tuple[str, bool]:
    """A key of an adjustment without the mark of removal, and whether it had one."""
    return key.removeprefix(_MARK), key.startswith(_MARK)


def mark(key: str) -> str:
    """The key, marked as one to remove."""
    return _MARK + key


def split(wanted: Mapping[str, _Value]) -> tuple[set[str], dict[str, _Value]]:
    """The keys that a map of an adjustment removes, and what it sets."""
    removed = {unmark(key)[0] for key in wanted if unmark(key)[1]}
    return removed, {key: value for key, value in wanted.items() if not unmark(key)[1]}


class Owners:
    """The plugins that own what they adjusted, by container.

    A plugin that removed what another one had set owns the place: it may set it anew, others may not.
    """

    def __init__(self) -> None:
        self._owners: dict[str, dict[Claim, str]] = {}

    def owner(self, container: str, claim: Claim) -> str | None:
        """The plugin that set it ("-" before the name: removed it), or None."""
        return self._owners.get(container, {}).get(claim)

    def claim(self, container: str, claims: Iterable[Claim], plugin: str) -> None:
        """Claim all of them or, when one is not to be had, none.

        A second claim conflicts even when it is the same plugin's: it asked for two values at once.

        :raises PluginConflict: naming both plugins and what they want.
        """
        owners = self._owners.setdefault(container, {})
        wanted: dict[Claim, str] = {}
        for claim in claims:
            other = wanted.get(claim) or owners.get(claim)
            if other is not None and other != mark(plugin):
                raise PluginConflict(unmark(other)[0], plugin, _name(claim))
            wanted[claim] = plugin
        owners |= wanted

    def clear(self, container: str, claims: Iterable[Claim], plugin: str) -> None:
        """Note that `plugin` removed what others had set; it may claim it now."""
        owners = self._owners.setdefault(container, {})
        owners |= {claim: mark(plugin) for claim in claims if claim in owners}

    def collect(self, container: str, field: nri_pb2.Field.ValueType, plugin: str) -> None:
        """Add an owner to a field that takes the values of all (OCI hooks)."""
        owners = self._owners.setdefault(container, {})
        others = owners.get((field, None))
        owners[field, None] = f"{others},{plugin}" if others else plugin

    def to_message(self) -> nri_pb2.OwningPlugins:
        """As validating plugins are told."""
        message = nri_pb2.OwningPlugins()
        for container, owners in self._owners.items():
            fields = message.owners[container]
            for (field, key), plugin in owners.items():
                if key is None:
                    fields.simple[field] = plugin
                else:
                    fields.compound[field].owners[key] = plugin
        return message


def _name(claim: Claim) -> str:
    field, key = claim
    name = nri_pb2.Field.Name(field)
    return name if key is None else f"{key} of {name}"
