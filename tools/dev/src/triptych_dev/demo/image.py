"""The demo's image: busybox in a gzip, a zstd and a plain layer, as a manifest list of two platforms."""

from __future__ import annotations

import platform

from triptych_dev import ociimages
from triptych_dev.ociimages import Compression, Image, Layer, Pusher

GREETING = "hello from triptych"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def images() -> tuple[Image, Image]:
    """The image for this machine, and one for a platform that nobody has."""
    architecture = _MACHINES.get(platform.machine(), platform.machine())
    site = Layer(Compression.ZSTD).directory("www").file("www/index.html", GREETING + "\n")
    site.symlink("www/again.html", "index.html").file("etc/motd", "a later layer removes this\n")
    last = Layer(Compression.NONE).whiteout("etc/motd")
    config = {"Cmd": ["sh"], "Env": ["PATH=/bin", f"GREETING={GREETING}"]}
    layers = [ociimages.busybox_layer(), site, last]
    other = ociimages.build([Layer().file("lib/plan9", "9\n")], architecture="386")
    return ociimages.build(layers, config, architecture), other


def push(host: str) -> str:
    """Push the manifest list; gives its reference."""
    mine, other = images()
    pusher = Pusher(host)
    for image in (mine, other):
        pusher.push("demo/busybox", image.digest, image)
    architecture = _MACHINES.get(platform.machine(), platform.machine())
    listed = [
        (other, {"os": "plan9", "architecture": "386"}),
        (mine, {"os": "linux", "architecture": architecture}),
    ]
    pusher.manifest("demo/busybox", "latest", ociimages.index(listed), ociimages.OCI_INDEX)
    return f"{host}/demo/busybox:latest"
