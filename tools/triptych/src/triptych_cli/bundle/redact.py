"""Taking secrets out of text and of documents before they leave the node.

Text is looked at by patterns, for names and for forms that secrets have; what has a format (JSON, TOML) is
better parsed and given to `document`. All of it is meant to be too eager rather than to miss one.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

MARK = "[redacted]"

# Names are known by their ends: what stands before need not be looked at. Lengths are bounded, as time is.
_BROAD = r"""(?:auth|auth[-_]?config|authorization|cookie|headers?(?:\.[\w."'-]{1,64})?)"""
"""Names of values that go on behind a space or a comma."""
_NAME = (
    r"(?:(?:passw(?:or)?d|passphrase|secret|token|credential|bearer|dockercfg|dockerconfig|key[-_]?data"
    r"|(?:api|access|account|encryption|private|session|shared|signing)[-_]?key)[\w.-]{0,64}"
    rf"|creds?|signature|(?<![A-Za-z0-9])(?:pass|pwd|sig)|{_BROAD})"
)
_QUOTE = r"""\\{0,8}["']"""  # with backslashes where a log line quotes a document
_IS = r"[ \t]*(?::=|=>|=|:)[ \t]*"
_LINE = re.compile(
    rf"^(?P<indent>[ \t]*)(?P<name>(?:- |export |[#;][ \t]*)?(?:{_QUOTE})?"
    rf"[\w.-]{{0,64}}?{_NAME}(?:{_QUOTE})?{_IS})"
    r'(?P<value>"""[\s\S]*?(?:"""|\Z)|' + r"'''[\s\S]*?(?:'''|\Z)|.*(?:\n(?P=indent)(?:[ \t]+|- ).*)*)",
    re.IGNORECASE | re.MULTILINE,
)
"""A line that assigns, with the lines below it that are part of the value, as YAML has them."""
_ASSIGNMENT = re.compile(
    rf"(?P<name>(?:(?P<broad>{_BROAD})|{_NAME})(?:{_QUOTE})?{_IS})"
    r"""(?P<value>(?(broad)(?:"(?:[^"\\\n]|\\.)*"|.+)|"""
    r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|(?P<quote>\\{1,8}["']).*?(?P=quote)|["'{\[].*|[^\s,;}\]]\S*)))""",
    re.IGNORECASE,
)
_FLAG = re.compile(
    rf"(?<![\w-])(--?[\w.-]{{0,64}}?{_NAME}(?:{_QUOTE})?(?:=|[ \t]*,[ \t]*|[ \t]+))"
    r"""("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\S+)""",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"""(?:""|''|\[\]|\{\}|null|true|false)?[ \t,]*(?:#[ \t]*(?:default|/[\w./, -]+))?""")
"""What is no secret, with the origin that `--print-config` writes behind a value."""
_UNIT = re.compile(
    r"^([ \t]*(?:Environment|SetCredential(?:Encrypted)?)=)((?:.*\\\n(?:[ \t]*[#;].*\n)*)*.*)", re.MULTILINE
)
"""Of a unit file (systemd.syntax(7)): a backslash goes on in the next line that is no comment."""
_VARIABLE = re.compile(r"[A-Za-z_]\w*(?==)")
_BEARER = re.compile(r"\b(Bearer|Basic|Digest)\s+[A-Za-z0-9+/_.~=-]{6,}", re.IGNORECASE)
_USERINFO = re.compile(
    r"(\b[a-z][a-z0-9+.-]{0,30}://)"
    # Up to the last @ of the host's part; or with a slash in the password, which is what follows no port.
    r"(?:[^/\s\"]*|[^/\s:@\"]+:(?!\d{1,5}(?:[/?#\s\"]|$))[^\s\"]*)@",
    re.IGNORECASE,
)
_QUERY = re.compile(r"(?<=[\w/.:%~\]-])\?[^\s\"<>=]+=[^\s\"<>]*")
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_SESSION = re.compile(r"(/(?:exec|attach|portforward)/)[A-Za-z0-9_-]{8,}")
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")
_KEY = re.compile(rf".*{_NAME}", re.IGNORECASE)
_OPTION = re.compile(rf"-.*{_NAME}", re.IGNORECASE)


def text(content: str) -> str:
    """The text with every value that may be a secret replaced by a mark."""
    content = _PEM.sub(rf"-----BEGIN \1-----{MARK}", content)
    content = _UNIT.sub(_unit, content)
    content = _JWT.sub(MARK, content)
    content = _USERINFO.sub(rf"\1{MARK}@", content)
    content = _QUERY.sub(f"?{MARK}", content)
    content = _SESSION.sub(rf"\1{MARK}", content)
    content = _LINE.sub(_hidden, content)
    content = _FLAG.sub(rf"\1{MARK}", content)
    content = _BEARER.sub(rf"\1 {MARK}", content)
    return _ASSIGNMENT.sub(_hidden, content)


def _hidden(found: re.Match[str]) -> str:
    value = found["value"]
    if _NOTHING.fullmatch(value):
        return found[0]
    quote = "" if value.startswith(MARK) else {"{": '"', "[": '"', '"': '"', "'": "'"}.get(value[0], "")
    before = found[0][: found.start("value") - found.start()]
    return f"{before}{quote}{MARK}{quote}"


def _unit(found: re.Match[str]) -> str:
    """The names of variables stay."""
    try:
        words = shlex.split(found[2].replace("\\\n", " "), comments=False)
    except ValueError:
        words = []
    names = [name[0] for word in words if (name := _VARIABLE.match(word))]
    return found[1] + (" ".join(f"{name}={MARK}" for name in names) or MARK)


def document(value: Any) -> Any:
    """A JSON document likewise; environments of containers lose their values whatever the names."""
    if isinstance(value, dict):
        return {text(str(key)): _entry(str(key), entry) for key, entry in value.items()}
    if isinstance(value, list):
        before = [None, *value]
        return [
            MARK if isinstance(option, str) and _OPTION.fullmatch(option) else document(entry)
            for option, entry in zip(before, value, strict=False)
        ]
    return text(value) if isinstance(value, str) else value


def _entry(key: str, value: Any) -> Any:
    if key.lower() in ("env", "envs", "environment"):
        return _environment(value)
    if _KEY.fullmatch(key) and value not in ("", None, [], {}) and not isinstance(value, bool):
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
