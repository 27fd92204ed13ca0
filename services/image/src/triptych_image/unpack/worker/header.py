"""One tar header block, and the numbers and records in it (ustar, GNU, PAX)."""

from __future__ import annotations

import struct

from triptych_image.unpack.worker.errors import limit, malformed
from triptych_image.unpack.worker.limits import PAX_MAX, XATTR_VALUE_MAX, XATTRS_MAX

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_XATTR = b"SCHILY.xattr."
_ID_MAX = 0xFFFFFFFE
_SECONDS_MAX = 1 << 62
"""What a time_t takes; file systems take less, and the kernel sees to that."""


class Entry:
    """One member of the archive, with its extended headers applied.

    :ivar kind: the type flag: "0" file, "1" hard link, "2" symlink, "3"/"4" device, "5" directory, "6" FIFO.
    :ivar size: bytes of payload in the archive.
    :ivar segments: of a sparse file (offset, length), else None; `real_size` is then its length with holes.
    """

    __slots__ = (
        "gid", "kind", "link", "major", "minor", "mode", "mtime_ns", "name", "real_size", "segments", "size",
        "uid", "xattrs",
    )  # fmt: skip

    def __init__(self) -> None:
        self.name = b""
        self.kind = b"0"
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.size = 0
        self.mtime_ns = 0
        self.link = b""
        self.major = 0
        self.minor = 0
        self.xattrs: dict[bytes, bytes] | None = None
        self.segments: list[tuple[int, int]] | None = None
        self.real_size = 0


def parse(block: bytes) -> Entry:
    """Parse a header block without what extended headers say; `kind` is the flag as it stands there.

    :raises Refused: for a wrong checksum or a field that is no number.
    """
    fields = _FIELDS.unpack(block)
    stored = number(fields[6])
    if stored != sum(block) - sum(block[148:156]) + 256:
        raise malformed("a tar header has a wrong checksum")
    entry = Entry()
    entry.name = _text(fields[0])
    entry.mode = number(fields[1]) & 0o7777
    entry.uid = number(fields[2])
    entry.gid = number(fields[3])
    entry.size = number(fields[4])
    entry.mtime_ns = max(-_SECONDS_MAX, min(number(fields[5]), _SECONDS_MAX)) * 1_000_000_000
    entry.kind = fields[7]
    entry.link = _text(fields[8])
    magic = fields[9]
    if magic[:5] == b"ustar":
        entry.major = number(fields[12])
        entry.minor = number(fields[13])
        # GNU archives ("ustar  ") keep times and sparse maps where POSIX has the prefix.
        if magic[5:6] == b"\0" and fields[14][0]:
            entry.name = _text(fields[14]) + b"/" + entry.name
    return entry


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def number(field: bytes) -> int:
    """An octal number, or GNU's base-256.

    :raises Refused: when it is neither.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        value -= 1 << (bits - 1)
        # The second highest bit is the sign.
        return value - (1 << (bits - 1)) if field[0] & 0x40 else value
    text = field.strip(b" \0")
    end = text.find(b"\0")
    if end >= 0:
        text = text[:end]
    if not text:
        return 0
    if not text.isdigit():
        raise malformed(f"a tar header has a number that is none: {field[:16]!r}")
    try:
        return int(text, 8)
    except ValueError:
        raise malformed(f"a tar header has a number that is none: {field[:16]!r}") from None


def check_ids(entry: Entry) -> None:
    """:raises Refused: for owners that Linux does not have."""
    if not (0 <= entry.uid <= _ID_MAX and 0 <= entry.gid <= _ID_MAX):
        raise malformed(f"owner {entry.uid}:{entry.gid} is out of range")
    if entry.size < 0:
        raise malformed("a tar header has a negative size")


def settle_kind(entry: Entry) -> None:
    """Old writers know files alone, and mark a directory by how its name ends, wherever that stands."""
    if entry.kind == b"\0":
        entry.kind = b"5" if entry.name.endswith(b"/") else b"0"
    elif entry.kind == b"7":
        entry.kind = b"0"


def parse_pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """The records of an extended header, in order (the sparse keys repeat).

    :raises Refused: for a record that breaks the format.
    """
    if len(data) > PAX_MAX:
        raise limit(f"an extended header has {len(data)} bytes, more than {PAX_MAX}")
    records: list[tuple[bytes, bytes]] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            if not data[position:].strip(b"\0"):
                break
            raise malformed("an extended header record has no length")
        end = position + int(digits)
        if end > len(data) or end <= space + 1 or data[end - 1] != 0x0A:
            raise malformed("an extended header record has a wrong length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise malformed("an extended header record has no key")
        records.append((key, value))
        position = end
    return records


def apply_pax(entry: Entry, records: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Apply PAX records to the entry that follows them; returns GNU's sparse keys, if any.

    An empty value means as if the record was not there (POSIX).

    :raises Refused: for values of the wrong shape.
    """
    sparse: dict[bytes, bytes] = {}
    spans: list[bytes] = []
    for key, value in records:
        if key.startswith(_XATTR):
            _add_xattr(entry, key[len(_XATTR) :], value)
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            spans.append(value)
        elif key.startswith(b"GNU.sparse."):
            sparse[key[11:]] = value
        elif not value:
            continue
        elif key == b"path":
            entry.name = _no_nul(value)
        elif key == b"linkpath":
            entry.link = _no_nul(value)
        elif key == b"size":
            entry.size = decimal(value)
        elif key == b"uid":
            entry.uid = decimal(value)
        elif key == b"gid":
            entry.gid = decimal(value)
        elif key == b"mtime":
            entry.mtime_ns = _time(value)
    if spans:
        sparse[b"map"] = b",".join(spans)
    return sparse


def _add_xattr(entry: Entry, name: bytes, value: bytes) -> None:
    if entry.xattrs is None:
        entry.xattrs = {}
    entry.xattrs[_no_nul(name)] = value
    if len(value) > XATTR_VALUE_MAX:
        raise limit(f"an extended attribute has {len(value)} bytes, more than {XATTR_VALUE_MAX}")
    if len(entry.xattrs) > XATTRS_MAX:
        raise limit(f"an entry has more than {XATTRS_MAX} extended attributes")


def _no_nul(value: bytes) -> bytes:
    if b"\0" in value:
        raise malformed("a name holds a NUL byte")
    return value


def decimal(value: bytes) -> int:
    """:raises Refused: unless it is a plain decimal number below 2^63."""
    if not value.isdigit() or len(value) > 19:
        raise malformed(f"an extended header has a number that is none: {value[:24]!r}")
    return int(value)


def _time(value: bytes) -> int:
    sign = -1 if value.startswith(b"-") else 1
    seconds, _, fraction = value.lstrip(b"-").partition(b".")
    if not seconds.isdigit() or len(seconds) > 18 or (fraction and not fraction.isdigit()):
        raise malformed(f"an extended header has a time that is none: {value[:24]!r}")
    return sign * (int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or b"0"))
