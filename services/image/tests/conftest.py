"""What the tests of the image daemon share: archives byte by byte, images, a registry, workers, a daemon."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from runtime.v1 import api_pb2_grpc
from triptych.image.v1 import image_pb2_grpc
from triptych.rootfs.v1 import rootfs_pb2_grpc
from triptych_image.store import Paths, Store
from triptych_image.unpack.pool import LayerLimits, UnpackWorkers
from triptych_image.unpack.reports import Unpacked


class TarWriter:
    """Builds archives that tarfile would refuse to write."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def raw(self, data: bytes) -> TarWriter:
        self.parts.append(data)
        return self

    def header(
        self,
        name: bytes,
        *,
        kind: bytes = b"0",
        size: int = 0,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 1_500_000_000,
        link: bytes = b"",
        major: int = 0,
        minor: int = 0,
        magic: bytes = b"ustar\x0000",
    ) -> TarWriter:
        def octal(number: int, width: int) -> bytes:
            if 0 <= number < 8 ** (width - 1):
                return b"%0*o\0" % (width - 1, number)
            return b"\x80" + number.to_bytes(width - 1, "big")

        block = bytearray(512)
        block[0 : len(name[:100])] = name[:100]
        block[100:108] = octal(mode, 8)
        block[108:116] = octal(uid, 8)
        block[116:124] = octal(gid, 8)
        block[124:136] = octal(size, 12)
        block[136:148] = octal(mtime, 12)
        block[148:156] = b" " * 8
        block[156:157] = kind
        block[157 : 157 + len(link[:100])] = link[:100]
        block[257:265] = magic
        block[329:337] = octal(major, 8)
        block[337:345] = octal(minor, 8)
        block[148:156] = b"%06o\0 " % sum(block)
        self.parts.append(bytes(block))
        return self

    def body(self, data: bytes) -> TarWriter:
        return self.raw(data + bytes(-len(data) % 512))

    def file(self, name: bytes, data: bytes = b"", **fields: Any) -> TarWriter:
        return self.header(name, size=len(data), **fields).body(data)

    def directory(self, name: bytes, **fields: Any) -> TarWriter:
        return self.header(name, kind=b"5", **{"mode": 0o755, **fields})

    def symlink(self, name: bytes, target: bytes, **fields: Any) -> TarWriter:
        return self.header(name, kind=b"2", link=target, mode=0o777, **fields)

    def hard_link(self, name: bytes, target: bytes) -> TarWriter:
        return self.header(name, kind=b"1", link=target)

    def pax(self, records: dict[bytes, bytes] | list[tuple[bytes, bytes]], kind: bytes = b"x") -> TarWriter:
        data = b""
        for key, value in records.items() if isinstance(records, dict) else records:
            body = b" " + key + b"=" + value + b"\n"
            length = len(body) + 1
            while len(b"%d" % length) + len(body) != length:
                length = len(b"%d" % length) + len(body)
            data += b"%d" % length + body
        return self.header(b"pax", kind=kind, size=len(data)).body(data)

    def end(self) -> bytes:
        return b"".join(self.parts) + bytes(1024)


@pytest.fixture
def tar() -> Callable[[], TarWriter]:
    """Makes an empty archive."""
    return TarWriter


@dataclass
class Image:
    """An image to serve or to load."""

    manifest: bytes
    config: bytes
    blobs: dict[str, bytes]
    media_type: str = "application/vnd.oci.image.manifest.v1+json"

    @property
    def id(self) -> str:
        return digest_of(self.config)

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def make_image() -> Callable[..., Image]:
    """Makes an image of layers given as plain archives."""

    def make(*layers: bytes, config: dict[str, Any] | None = None, pack: bool = True, **extra: Any) -> Image:
        packed = [gzip.compress(layer, 1, mtime=0) if pack else layer for layer in layers]
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        raw = json.dumps(document).encode()
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if pack else "")
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest_of(raw),
                "size": len(raw),
            },
            "layers": [{"mediaType": kind, "digest": digest_of(p), "size": len(p)} for p in packed],
            **extra,
        }
        blobs = {digest_of(p): p for p in packed} | {digest_of(raw): raw}
        return Image(json.dumps(manifest).encode(), raw, blobs)

    return make


@pytest.fixture
def layer_of() -> Callable[..., bytes]:
    """A plain archive of files given by name."""

    def make(files: dict[str, bytes]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return out.getvalue()

    return make


@dataclass
class Registry:
    """A registry in a thread, with knobs for misbehaviour.

    :ivar requests: "GET /v2/..." of each request, with the range asked for.
    :ivar stop_after: by digest, bytes after which the connection breaks, once each.
    :ivar rate: bytes a second that a blob is served with, 0 for all at once.
    :ivar stall: seconds without a byte in the middle of a blob that is not small.
    """

    address: str = ""
    images: dict[str, Image] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    stop_after: dict[str, int] = field(default_factory=dict)
    rate: int = 0
    stall: float = 0.0

    def add(self, name: str, image: Image) -> str:
        """Serve an image; returns its reference."""
        self.images[name] = image
        return f"{self.address}/{name}"


@pytest.fixture
def registry() -> Iterator[Registry]:
    served = Registry()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            served.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
            parts = self.path.strip("/").split("/")
            if parts == ["v2"]:
                return self._send(200, b"{}")
            kind, selector, name = parts[-2], parts[-1], "/".join(parts[1:-2])
            for tagged, image in list(served.images.items()):
                repository, _, tag = tagged.partition(":")
                if repository != name:
                    continue
                if kind == "manifests" and selector in (tag, image.digest):
                    return self._send(200, image.manifest, image.media_type, image.digest)
                if kind == "blobs" and selector in image.blobs:
                    return self._blob(selector, image.blobs[selector])
            return self._send(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')

        do_HEAD = do_GET

        def _send(self, status: int, body: bytes, kind: str = "application/json", digest: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if digest:
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _blob(self, digest: str, data: bytes) -> None:
            start = 0
            wanted = self.headers.get("Range", "")
            if wanted.startswith("bytes="):
                first, _, last = wanted[6:].partition("-")
                start = int(first)
                end = int(last) + 1 if last else len(data)
                body = data[start:end]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(data)}")
            else:
                body = data
                self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if self.command != "GET":
                return
            stop = served.stop_after.pop(digest, None)
            if stop is not None:
                self.wfile.write(body[:stop])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            if served.stall and len(body) > 100_000:
                self.wfile.write(body[: len(body) // 2])
                time.sleep(served.stall)
                body = body[len(body) // 2 :]
            if not served.rate:
                self.wfile.write(body)
                return
            step = max(served.rate // 20, 1)
            for position in range(0, len(body), step):
                self.wfile.write(body[position : position + step])
                time.sleep(0.05)

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, ValueError):
                pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def workers() -> AsyncIterator[UnpackWorkers]:
    pool = UnpackWorkers()
    yield pool
    await pool.close()


@dataclass
class Tree:
    """An unpacked layer."""

    root: Path
    tape: Path
    found: Unpacked


@pytest.fixture
def unpack(workers: UnpackWorkers, tmp_path: Path) -> Callable[..., Any]:
    """Unpacks an archive with real, confined workers."""
    count = iter(range(1000))

    async def run(data: bytes, limits: LayerLimits | None = None) -> Tree:
        root = tmp_path / f"layer{next(count)}"
        root.mkdir()
        tape = root.with_suffix(".tape")
        fd = os.open(tape, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            async with workers.unpack(root, fd, limits or LayerLimits()) as job:

                def feed() -> None:
                    view = memoryview(data)
                    try:
                        while view:
                            view = view[os.write(job.sink, view[: 1 << 16]) :]
                    except BrokenPipeError:
                        pass

                await asyncio.to_thread(feed)
                job.finish_input()
                return Tree(root, tape, await job.result())
        finally:
            os.close(fd)

    return run


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(Paths(tmp_path / "store", tmp_path / "store/rootfs"), sync=False)
    await opened.open()
    yield opened
    await opened.close()


class RunningDaemon:
    """The image daemon as a process, with stubs of its services."""

    def __init__(self, directory: Path, settings: str) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.config = directory / "image.toml"
        self.socket = directory / "image.sock"
        self.config.write_text(f'socket = "{self.socket}"\nroot = "{self.root}"\n{settings}')
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, fault: str = "") -> RunningDaemon:
        environment = {**os.environ, "TRIPTYCH_FAULT": fault}
        log = (self.directory / "daemon.log").open("ab")
        argv = [sys.executable, "-m", "triptych_image", "--config", str(self.config)]
        self.process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
        log.close()
        self.channel = grpc.insecure_channel(f"unix://{self.socket}")
        self.images = api_pb2_grpc.ImageServiceStub(self.channel)
        self.admin = image_pb2_grpc.ImageAdminServiceStub(self.channel)
        self.rootfs = rootfs_pb2_grpc.RootfsServiceStub(self.channel)
        return self

    def ready(self) -> RunningDaemon:
        """Wait until it serves, or fail with its log."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            try:
                grpc.channel_ready_future(self.channel).result(0.5)
            except grpc.FutureTimeoutError:
                continue
            return self
        raise AssertionError(self.log())

    def died(self) -> int:
        """Wait for its end; returns the exit status."""
        assert self.process is not None
        return self.process.wait(30)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.channel.close()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.channel.close()

    def log(self) -> str:
        return (self.directory / "daemon.log").read_text(errors="replace")

    def leftovers(self) -> list[str]:
        """Files of the store that should be gone when nothing is stored, and nothing is on its way."""
        places = ("l", "t", "p", "tmp", "trash", "rootfs", "blobs/sha256")
        return [f"{place}/{entry}" for place in places for entry in os.listdir(self.root / place)]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., RunningDaemon]]:
    """Starts image daemons on an isolated store."""
    started: list[RunningDaemon] = []

    def start(settings: str = "", *, fault: str = "", ready: bool = True) -> RunningDaemon:
        running = RunningDaemon(tmp_path, settings)
        started.append(running)
        running.start(fault)
        return running.ready() if ready else running

    yield start
    for running in started:
        running.stop()
