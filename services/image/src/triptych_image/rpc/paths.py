"""Paths in requests."""

from __future__ import annotations

from pathlib import Path

from triptych_image.errors import InvalidRequest


def absolute(text: str) -> Path:
    """:raises InvalidRequest: unless it is an absolute path; the daemon's directory is nobody's business."""
    if not text.startswith("/") or "\0" in text:
        raise InvalidRequest(f"path: {text[:200]!r} is not absolute")
    return Path(text)
