"""Coverage-guided fuzzing of what parses layers: decompressors, headers, extended headers, sparse maps.

python services/image/tests/fuzz/fuzz_layer.py -max_total_time=60 [corpus directory]

Writes no files: payload is skipped. Anything but entries or a `Refused` is a finding.
"""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["triptych_image.unpack"]):
    from triptych_image.unpack.worker import names, source
    from triptych_image.unpack.worker.archive import Archive
    from triptych_image.unpack.worker.errors import Refused
    from triptych_image.unpack.worker.limits import Limits
    from triptych_image.unpack.worker.tape import NoTape

_MOST = 1 << 22


class _Memory(source.Input):
    """Bytes in place of a descriptor."""

    def __init__(self, data: bytes) -> None:
        super().__init__(-1)
        self._head = data
        self.received = len(data)

    def peek(self, size: int) -> bytes:
        return self._head[:size]

    def read(self, size: int = source.IN_CHUNK) -> bytes:
        chunk, self._head = self._head[:size], self._head[size:]
        return chunk


def one(data: bytes) -> None:
    """One input: the first byte chooses whether checksums are mended, so that mutations get past them."""
    if data[:1] == b"m":
        data = _mend(data[1:])
    archive = None
    try:
        archive = Archive(source.chunks(_Memory(data)), NoTape(), Limits(bytes=_MOST, entries=1000))
        for entry in archive.members():
            names.clean(entry.name)
            names.clean(entry.link)
            total = sum(len(part) for part in archive.payload(entry.size))
            assert total == entry.size >= 0
            for offset, length in entry.segments or ():
                assert 0 <= offset and offset + length <= entry.real_size
    except Refused as refused:
        assert refused.kind in ("malformed", "limit")
        assert len(str(refused)) < 2000
    if archive is not None:
        assert archive.total <= _MOST + source.OUT_CHUNK


def _mend(data: bytes) -> bytes:
    blocks = bytearray(data)
    for start in range(0, len(blocks) - 511, 512):
        block = blocks[start : start + 512]
        if block[257:262] == b"ustar":
            total = sum(block) - sum(block[148:156]) + 256
            blocks[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(blocks)


def main() -> None:
    """Fuzz with the arguments of libFuzzer."""
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
