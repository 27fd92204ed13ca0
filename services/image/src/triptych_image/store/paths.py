"""Where the store keeps what.

root/blobs/sha256/<hex>   manifests and configs, and packed layers where they are kept (OCI image layout)
root/l/<key>/             unpacked layers; short names, because overlayfs takes one page of options
root/t/<key>              the tape of a layer: its archive without the files' contents
root/p/<blob>-<key>       packed layers and files of artifacts on their way, to go on from
root/ballast              room for removals on a full disk
root/tmp/                 what is being made; emptied at start
root/trash/               what is being removed; emptied at start
rootfs/<key>/             writable layers: upper and work
rootfs/.trash/            what is being removed of them, where they lie on another file system
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from triptych_oci import Digest

_PLAIN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LAYOUT = '{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, slots=True)
class Paths:
    """The directories of one store."""

    root: Path
    rootfs: Path

    @property
    def database(self) -> Path:
        return self.root / "store.db"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def ballast(self) -> Path:
        return self.root / "ballast"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @property
    def rootfs_trash(self) -> Path:
        """No key has this name; made when it is needed."""
        return self.rootfs / ".trash"

    @property
    def layers(self) -> Path:
        return self.root / "l"

    @property
    def tapes(self) -> Path:
        return self.root / "t"

    @property
    def partials(self) -> Path:
        return self.root / "p"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    def layer(self, key: str) -> Path:
        """Directory of an unpacked layer."""
        return self.layers / key

    def tape(self, key: str) -> Path:
        """Tape of a layer."""
        return self.tapes / key

    def blob(self, digest: Digest) -> Path:
        """File of a blob."""
        return self.blobs / digest.algorithm / digest.hex

    def partial(self, digest: Digest, key: str) -> Path:
        """File of a packed layer that is not whole yet.

        :param key: of the layer that it is said to hold: a manifest that lies about somebody's blob
            has a file of its own, so that only one fetch writes into a file.
        """
        return self.partials / f"{digest.algorithm}-{digest.hex}-{key}"

    def writable(self, key: str) -> Path:
        """Directory of a writable layer; the same name for the same key always."""
        plain = _PLAIN_KEY.fullmatch(key) is not None
        return self.rootfs / (key if plain else "k-" + hashlib.sha256(key.encode()).hexdigest()[:32])

    def scratch(self) -> Path:
        """A name in `tmp` that nobody has."""
        return self.tmp / secrets.token_hex(8)

    def discarded(self) -> Path:
        """A name in `trash` that nobody has."""
        return self.trash / secrets.token_hex(8)

    def make(self) -> None:
        """Create what is missing, for the daemon's user alone.

        :raises OSError: when that is impossible.
        """
        for path in (self.root, self.rootfs):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (
            self.tmp,
            self.trash,
            self.layers,
            self.tapes,
            self.partials,
            self.blobs,
            self.blobs / "sha256",
            self.blobs / "sha512",
        ):
            path.mkdir(mode=0o700, exist_ok=True)
        layout = self.root / "oci-layout"
        if not layout.exists():
            layout.write_text(_LAYOUT, encoding="ascii")


@functools.lru_cache(maxsize=512)
def layer_key(diff_id: str) -> str:
    """The directory name of a layer: 26 characters of 130 bits of its diffID's hash."""
    raw = hashlib.sha256(diff_id.encode()).digest()[:17]
    return base64.b32encode(raw).decode().lower()[:26]


def same_filesystem(one: Path, other: Path) -> bool:
    """Whether two directories lie on one file system."""
    return os.stat(one).st_dev == os.stat(other).st_dev
