"""The resize stream: JSON objects one behind the other, `{"Width":80,"Height":24}`."""

from __future__ import annotations

import codecs
import json

from triptych_streaming.protocol.channels import Buffer, Resized

_LONGEST = 4096
_LARGEST = 0xFFFF


class ResizeParser:
    """Cuts sizes out of a stream; after something that is no size it hears nothing more, as in Go."""

    def __init__(self) -> None:
        self._text = ""
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._broken = False
        self._decoder = json.JSONDecoder()

    def feed(self, data: Buffer) -> list[Resized]:
        """Sizes that `data` completes; those below 1 or above 65535 are left out."""
        found: list[Resized] = []
        if self._broken:
            return found
        self._text = (self._text + self._utf8.decode(bytes(data))).lstrip()
        while self._text:
            try:
                document, end = self._decoder.raw_decode(self._text)
            except (json.JSONDecodeError, RecursionError):
                self._broken = len(self._text) > _LONGEST or not self._text.startswith("{")
                break
            self._text = self._text[end:].lstrip()
            if not isinstance(document, dict):
                self._broken = True
                break
            width, height = _number(document, "width"), _number(document, "height")
            if width and height:
                found.append(Resized(width, height))
        return found


def _number(document: dict[str, object], name: str) -> int:
    """Keys are matched as Go does, in any case; 0 for what is no usable size."""
    for key, value in document.items():
        if key.lower() == name and isinstance(value, int) and 1 <= value <= _LARGEST:
            return int(value)
    return 0
