"""Taking secrets out of text before it leaves the node.

Works on lines and on JSON and TOML assignments; it is meant to be too eager rather than to miss one.
"""

from __future__ import annotations

import re
from typing import Any

MARK = "[redacted]"

_NAMES = (
    r"(?:[\w.-]*(?:passw(?:or)?d|passwd|secret|token|credential|api[-_]?key|private[-_]?key|access[-_]?key)[\w.-]*"
    r"|auth|authorization|identitytoken|registrytoken|headers?|cookie|set-cookie)"
)
_ASSIGNMENT = re.compile(
    rf"""(?P<name>["']?\b{_NAMES}["']?\s*(?:=|:)\s*)"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|\{[^{}]*\}|\[[^\[\]]*\]|[^\s,;}\]]+)""",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(Bearer|Basic|Digest)\s+[A-Za-z0-9+/_.~=-]{6,}", re.IGNORECASE)
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s:@\"']+(?::[^/\s@\"']*)?@", re.IGNORECASE)
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_SESSION = re.compile(r"(/(?:exec|attach|portforward)/)[A-Za-z0-9_-]{8,}")
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")
_KEY = re.compile(rf"^{_NAMES}$", re.IGNORECASE)
_FLAG = re.compile(rf"(--{_NAMES}(?:=|\s+))(\S+)", re.IGNORECASE)


def text(content: str) -> str:
    """The text with every value that may be a secret replaced by a mark."""
    content = _PEM.sub(rf"-----BEGIN \1-----{MARK}", content)
    content = _JWT.sub(MARK, content)
    content = _USERINFO.sub(rf"\1{MARK}@", content)
    content = _SESSION.sub(rf"\1{MARK}", content)
    content = _FLAG.sub(rf"\1{MARK}", content)
    content = _BEARER.sub(rf"\1 {MARK}", content)
    return _ASSIGNMENT.sub(_hidden, content)


def _hidden(found: re.Match[str]) -> str:
    value = found["value"]
    if value in ('""', "''", "[]", "{}", "null", "true", "false", MARK):
        return found[0]
    quote = value[0] if value[0] in "\"'" else '"' if value[0] in "{[" else ""
    return f"{found['name']}{quote}{MARK}{quote}"


def document(value: Any) -> Any:
    """A JSON document likewise; environments of containers lose their values whatever the names."""
    if isinstance(value, dict):
        return {key: _entry(str(key), entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [document(entry) for entry in value]
    return text(value) if isinstance(value, str) else value


def _entry(key: str, value: Any) -> Any:
    if key.lower() in ("env", "envs", "environment"):
        return _environment(value)
    if _KEY.match(key) and value not in ("", None, [], {}) and not isinstance(value, bool):
        return MARK
    return document(value)


def _environment(value: Any) -> Any:
    if isinstance(value, list):
        return [_variable(entry) for entry in value]
    if isinstance(value, dict):
        return dict.fromkeys(value, MARK)
    return MARK


def _variable(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {key: entry[key] if key in ("key", "name") else MARK for key in entry}
    return f"{str(entry).partition('=')[0]}={MARK}"
