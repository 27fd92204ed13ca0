"""IDs of sandboxes and containers."""

from __future__ import annotations

import secrets


def new_id() -> str:
    """A random ID: 64 lower-case hex digits, as every CRI runtime uses them."""
    return secrets.token_hex(32)
