"""Building small OCI images and pushing them to a registry: real input for the demo, tests and benchmarks.

Nothing here is used by the daemons. Layers are made in memory, deterministically: the same input gives the
same digests.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

_MTIME = 1_700_000_000


class Compression(Enum):
    """How a layer blob is packed, by the suffix of its media type."""

    NONE = ""
    GZIP = "+gzip"
    ZSTD = "+zstd"


def digest(data: bytes) -> str:
    """The sha256 digest of a blob."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(slots=True)
class Layer:
    """A layer under construction; each method returns the layer itself."""

    compression: Compression = Compression.GZIP
    level: int = 1
    _entries: list[tuple[tarfile.TarInfo, bytes]] = field(default_factory=list)

    def _add(self, name: str, kind: bytes, mode: int, data: bytes = b"", **more: Any) -> Layer:
        info = tarfile.TarInfo(name.lstrip("/"))
        info.type, info.mode, info.size, info.mtime = kind, mode, len(data), _MTIME
        for key, value in more.items():
            setattr(info, key, value)
        self._entries.append((info, data))
        return self

    def directory(self, name: str, mode: int = 0o755, **more: Any) -> Layer:
        return self._add(name + "/", tarfile.DIRTYPE, mode, **more)

    def file(self, name: str, data: bytes | str, mode: int = 0o644, **more: Any) -> Layer:
        return self._add(
            name, tarfile.REGTYPE, mode, data.encode() if isinstance(data, str) else data, **more
        )

    def symlink(self, name: str, target: str, **more: Any) -> Layer:
        return self._add(name, tarfile.SYMTYPE, 0o777, linkname=target, **more)

    def device(self, name: str, major: int, minor: int, mode: int = 0o666, **more: Any) -> Layer:
        return self._add(name, tarfile.CHRTYPE, mode, devmajor=major, devminor=minor, **more)

    def whiteout(self, name: str) -> Layer:
        """Hide a file of a layer below (image-spec layer.md)."""
        parent, _, base = name.rpartition("/")
        return self.file(f"{parent}/.wh.{base}", b"")

    def opaque(self, name: str) -> Layer:
        """Hide everything that layers below have in a directory."""
        return self.directory(name).file(f"{name}/.wh..wh..opq", b"")

    def tar(self) -> bytes:
        """The uncompressed layer; its digest is the diff ID."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for info, data in self._entries:
                archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
        return buffer.getvalue()

    def blob(self, raw: bytes) -> bytes:
        """The layer as it lies in the registry."""
        if self.compression is Compression.GZIP:
            return gzip.compress(raw, self.level, mtime=0)
        if self.compression is Compression.ZSTD:
            import zstandard

            return zstandard.ZstdCompressor(level=self.level).compress(raw)
        return raw


@dataclass(frozen=True, slots=True)
class Image:
    """An image: blobs by digest, and the manifest that names them."""

    manifest: bytes
    blobs: Mapping[str, bytes]
    config_digest: str
    media_type: str = OCI_MANIFEST

    @property
    def digest(self) -> str:
        return digest(self.manifest)


def build(
    layers: Sequence[Layer], config: Mapping[str, Any] | None = None, architecture: str = "amd64"
) -> Image:
    """Put an image together.

    :param config: the `config` object of the image config: Cmd, Env, User, ...
    """
    blobs: dict[str, bytes] = {}
    descriptors, diff_ids = [], []
    for layer in layers:
        raw = layer.tar()
        blob = layer.blob(raw)
        blobs[digest(blob)] = blob
        diff_ids.append(digest(raw))
        media_type = OCI_LAYER + layer.compression.value
        descriptors.append({"mediaType": media_type, "digest": digest(blob), "size": len(blob)})
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    raw_config = json.dumps(document, sort_keys=True).encode()
    blobs[digest(raw_config)] = raw_config
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest(raw_config), "size": len(raw_config)},
        "layers": descriptors,
    }
    return Image(json.dumps(manifest, sort_keys=True).encode(), blobs, digest(raw_config))


def index(images: Sequence[tuple[Image, Mapping[str, str]]]) -> bytes:
    """An image index ("manifest list"): images with their platforms."""
    manifests = [
        {"mediaType": i.media_type, "digest": i.digest, "size": len(i.manifest), "platform": dict(platform)}
        for i, platform in images
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return json.dumps(document, sort_keys=True).encode()


def busybox_layer(
    busybox: Path = Path("/bin/busybox"), compression: Compression = Compression.GZIP
) -> Layer:
    """A root file system of Debian's busybox-static with an applet link each, and a few users."""
    import subprocess

    layer = Layer(compression)
    for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "var"):
        layer.directory(name)
    layer.directory("tmp", 0o1777).file("bin/busybox", busybox.read_bytes(), 0o755)
    names = subprocess.run(
        [busybox, "--list"], check=True, capture_output=True, text=True, timeout=10
    ).stdout.split()
    for name in names:
        if name != "busybox":
            layer.symlink(f"bin/{name}", "busybox")
    layer.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    layer.file("etc/group", "root:x:0:\nnogroup:x:65534:\nusers:x:100:root,nobody\n")
    return layer


def busybox_image(compression: Compression = Compression.GZIP) -> Image:
    """A one-layer busybox image that runs a shell."""
    config = {"Cmd": ["sh"], "Env": ["PATH=/bin"]}
    return build([busybox_layer(compression=compression)], config)


class Pusher:
    """Uploads images to a plain-HTTP registry on loopback (distribution-spec)."""

    def __init__(self, host: str) -> None:
        self.host = host

    def push(self, name: str, tag: str, image: Image) -> str:
        """Upload an image; returns its reference by tag."""
        for blob_digest, blob in image.blobs.items():
            self.blob(name, blob_digest, blob)
        self.manifest(name, tag, image.manifest, image.media_type)
        return f"{self.host}/{name}:{tag}"

    def blob(self, name: str, blob_digest: str, data: bytes) -> None:
        """Upload one blob unless it is there."""
        if self._call("HEAD", f"/v2/{name}/blobs/{blob_digest}", accept=(200, 404))[0] == 200:
            return
        _, headers = self._call("POST", f"/v2/{name}/blobs/uploads/", accept=(202,))
        location = headers["location"]
        path = location.split(self.host, 1)[1] if "://" in location else location
        path += ("&" if "?" in path else "?") + f"digest={blob_digest}"
        self._call("PUT", path, data, {"Content-Type": "application/octet-stream"}, accept=(201,))

    def manifest(self, name: str, reference: str, data: bytes, media_type: str) -> None:
        """Upload a manifest or an index under a tag or digest."""
        path = f"/v2/{name}/manifests/{reference}"
        self._call("PUT", path, data, {"Content-Type": media_type}, accept=(201,))

    def _call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        accept: Sequence[int],
    ) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Length": str(len(body)), **(headers or {})})
            response = connection.getresponse()
            text = response.read()
            if response.status not in accept:
                raise OSError(f"{method} {self.host}{path}: {response.status} {text[:300]!r}")
            return response.status, {k.lower(): v for k, v in response.getheaders()}
        finally:
            connection.close()
