"""The list of what an installation wrote, so that uninstall removes that and nothing else."""

from __future__ import annotations

import enum
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from triptych_dev.node.errors import NotPossible
from triptych_dev.node.places import inside


class Kind(enum.Enum):
    """What a file is to the node."""

    PROGRAM = "program"
    UNIT = "unit"
    CONFIG = "config"
    """The operator may edit it: an upgrade keeps the edited file."""


class Entry(msgspec.Struct, frozen=True):
    """One installed file or link.

    :param digest: SHA-256 of the content as written, of the target for a link.
    """

    path: str
    kind: Kind
    digest: str


class Document(msgspec.Struct):
    """The file itself."""

    version: str
    prefix: str
    entries: list[Entry] = msgspec.field(default_factory=list)


@dataclass(slots=True)
class Manifest:
    """Writes files below a root and remembers them.

    :param root: "/" on a running node, else the directory that becomes its root.
    :param before: what an earlier installation wrote, by path.
    """

    root: Path
    before: dict[str, Entry] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    kept: list[Path] = field(default_factory=list)

    def write(self, path: Path, content: bytes, kind: Kind, mode: int = 0o644) -> None:
        """Write a file by rename; an edited configuration file stays and gets the new one as NAME.new."""
        target = inside(self.root, path)
        entry = Entry(str(path), kind, hashlib.sha256(content).hexdigest())
        if kind is Kind.CONFIG and self._edited(target, entry):
            self.kept.append(path)
            self.entries[entry.path] = Entry(entry.path, kind, "")
            path = path.with_name(path.name + ".new")
            target = inside(self.root, path)
            entry = Entry(str(path), kind, entry.digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new")
        fresh.write_bytes(content)
        fresh.chmod(mode)
        fresh.rename(target)
        self.entries[entry.path] = entry

    def link(self, path: Path, to: Path, kind: Kind) -> None:
        """Make a symbolic link, in place of an older one.

        :raises NotPossible: something that is not a link is there.
        """
        target = inside(self.root, path)
        if target.exists() and not target.is_symlink():
            raise NotPossible(f"{path} exists and is not ours", hint="remove it, or choose another place")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(to)
        fresh.rename(target)
        self.entries[str(path)] = Entry(str(path), kind, hashlib.sha256(os.fsencode(to)).hexdigest())

    def _edited(self, target: Path, entry: Entry) -> bool:
        if not target.is_file():
            return False
        found = hashlib.sha256(target.read_bytes()).hexdigest()
        known = self.before.get(entry.path)
        return found != entry.digest and (known is None or known.digest != found)

    def _settle_older(self) -> None:
        """What an earlier version placed and this one does not: configuration stays, the rest goes."""
        for name, entry in self.before.items():
            if name in self.entries:
                continue
            if entry.kind is Kind.CONFIG:
                self.entries[name] = entry
            else:
                inside(self.root, Path(name)).unlink(missing_ok=True)

    def save(self, path: Path, version: str, prefix: Path) -> None:
        """Write the list; the last act of an installation, so that it names only what is there."""
        self._settle_older()
        document = Document(version, str(prefix), [self.entries[name] for name in sorted(self.entries)])
        target = inside(self.root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def load(root: Path, path: Path) -> Document | None:
    """The list of an installation; None when there is none.

    :raises NotPossible: it is there and cannot be read.
    """
    try:
        return msgspec.json.decode(inside(root, path).read_bytes(), type=Document)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise NotPossible(f"{path}: not an installation's list: {error}") from None
