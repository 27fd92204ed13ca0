"""Images for `./dev bench pull`, the same bytes every time.

Contents pack like program text and data do (about 3 : 1 in the image of small files, half of the bytes of
the other one not at all), because a decompressor's speed depends on it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from triptych_dev.ociimages import Image, Layer, build

_CORPUS = 8 << 20


class Contents:
    """Gives file contents: text of a random vocabulary, or noise."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        words = [self._random.randbytes(self._random.randint(2, 6)).hex() for _ in range(3000)]
        text = bytearray()
        while len(text) < _CORPUS:
            text += " ".join(self._random.choices(words, k=2000)).encode() + b"\n"
        self._text = bytes(text[:_CORPUS])

    def text(self, size: int) -> bytes:
        """Text that packs about 3 : 1."""
        parts = []
        while size:
            start = self._random.randrange(_CORPUS - 1)
            part = self._text[start : start + min(size, 1 << 18)]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def noise(self, size: int) -> bytes:
        """Bytes that do not pack."""
        return self._random.randbytes(size)

    def size(self, mean: int) -> int:
        """A file size: many small ones, few large ones."""
        return min(int(self._random.expovariate(1 / mean)) + 1, mean * 10)


def small_files(megabytes: int = 400, layers: int = 5, mean: int = 20_000) -> Image:
    """Many small files, as in an image of a language's run time and its packages."""
    contents = Contents(1)
    made = []
    for number in range(layers):
        layer, left, index = Layer(level=6), (megabytes << 20) // layers, 0
        while left > 0:
            if index % 40 == 0:
                directory = f"usr/lib/packages{number}/p{index // 40:04d}"
                layer.directory(directory)
            size = min(contents.size(mean), left)
            layer.file(f"{directory}/module_{index % 40:02d}.py", contents.text(size))
            left -= size
            index += 1
        made.append(layer)
    return build(made)


def large_files(megabytes: int = 1024, layers: int = 4, each: int = 64) -> Image:
    """Few large files, half of them text and half noise, as in an image with models or binaries."""
    contents = Contents(2)
    made = []
    for number in range(layers):
        layer = Layer(level=1)
        for index in range(megabytes // layers // each):
            make = contents.noise if index % 2 else contents.text
            layer.file(f"opt/data{number}/file{index}.bin", make(each << 20))
        made.append(layer)
    return build(made)


def small_images(count: int = 20) -> Iterator[Image]:
    """Small images as many services ship them: a base that all share, and two layers of their own."""
    contents = Contents(3)
    base = Layer().directory("bin").file("bin/tool", contents.text(2 << 20), 0o755)
    for number in range(20):
        base.file(f"etc/conf{number}", contents.text(2000))
    for number in range(count):
        program = Layer().file(f"app/program{number}", contents.text(1 << 20), 0o755)
        data = Layer()
        for index in range(20):
            data.file(f"app/data{number}/{index}", contents.text(contents.size(4000)))
        yield build([base, program, data])
