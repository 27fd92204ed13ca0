"""The one table of settings.

A daemon declares its settings once, as a `Table` whose fields are made by `setting`. From that table come
the parser and its errors (`triptych_service.config`), the help text and the reference page
(`triptych_service.reference`) and what a reload may change (`triptych_service.reload`).

    class Settings(ServiceSettings):
        root: str = setting("/var/lib/triptych/image", "Directory of what survives a reboot.")
        pull: PullSettings = setting(PullSettings(), "How images are pulled.")
"""

from __future__ import annotations

import copy
import enum
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, dataclass_transform

import msgspec

T = TypeVar("T")


HIDDEN = "(hidden)"
"""What stands for the value of a secret."""


class Reload(enum.Enum):
    """When a changed value takes effect."""

    LIVE = "live"
    """On SIGHUP."""
    RESTART = "restart"
    """With the next start of the daemon; a reload says so and keeps the old value."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared key.

    :param help: one sentence or more for people, in Markdown.
    :param reload: when a change takes effect; for a nested table its own keys decide.
    :param secret: whether values are kept out of logs and of `--print-config`.
    """

    default: Any
    help: str
    reload: Reload
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table with its type resolved.

    :param table: the nested table, or None for a plain value.
    :param table_map: the table of each entry when the value maps names that users choose to tables.
    """

    name: str
    type: Any
    setting: Setting
    table: type[Table] | None
    table_map: type[Table] | None


def setting(default: T, help: str, *, reload: Reload = Reload.RESTART, secret: bool = False) -> T:
    """Declare a key: its default, what it means, when a change of it takes effect, and whether to hide it.

    Typed as its default so that the class body type-checks; the table's metaclass takes it apart.
    """
    return typing.cast(T, Setting(default, help, reload, secret))


_DECLARED: dict[type, dict[str, Setting]] = {}


@dataclass_transform(frozen_default=True, kw_only_default=True)
class TableMeta(msgspec.StructMeta):
    """Moves the declarations out of the class body before msgspec sees it."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> Any:
        declared = {k: v for k, v in namespace.items() if isinstance(v, Setting)}
        for key, entry in declared.items():
            namespace[key] = _fresh(entry.default)
        config.setdefault("kw_only", True)
        cls = super().__new__(mcs, name, bases, namespace, **config)
        inherited: dict[str, Setting] = {}
        for base in reversed(bases):
            inherited.update(_DECLARED.get(base, {}))
        _DECLARED[cls] = inherited | declared
        return cls


def _fresh(default: Any) -> Any:
    """A default that msgspec takes: a filled dict or list only as a factory of copies."""
    if isinstance(default, dict | list) and default:
        return msgspec.field(default_factory=lambda: copy.copy(default))
    return default


class Table(msgspec.Struct, metaclass=TableMeta, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of a table of settings: frozen, and a key it does not know is an error."""


def keys(table: type[Table]) -> Iterator[Key]:
    """The keys of a table in the order of declaration, inherited ones first.

    :raises TypeError: when a field was declared without `setting`; a mistake of the programmer.
    """
    declared = _DECLARED[table]
    hints = typing.get_type_hints(table, include_extras=True)
    for field in msgspec.structs.fields(table):
        if field.name not in declared:
            raise TypeError(f"{table.__qualname__}.{field.name} is not declared by setting(...)")
        hint = hints[field.name]
        yield Key(field.encode_name, hint, declared[field.name], _table(hint), _table_of_map(hint))


def _table(hint: Any) -> type[Table] | None:
    return hint if isinstance(hint, type) and issubclass(hint, Table) else None


def _table_of_map(hint: Any) -> type[Table] | None:
    if typing.get_origin(hint) in (dict, Mapping):
        return _table(typing.get_args(hint)[1])
    return None


class LogLevel(enum.Enum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.Enum):
    """How log lines look."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"
    JOURNALD = "journald"


class LogSettings(Table):
    """`[log]`"""

    level: LogLevel = setting(LogLevel.INFO, "Least severity that is logged.", reload=Reload.LIVE)
    format: LogFormat = setting(
        LogFormat.AUTO,
        "`text` for people, `json` one object a line, `journald` fields on journald's own socket; `auto` "
        "takes journald when systemd connected standard error to it, text on a terminal, JSON otherwise.",
    )
    levels: dict[str, LogLevel] = setting(
        {},
        'Levels of single loggers, by dotted name, such as `"triptych_runtime.network" = "debug"`.',
        reload=Reload.LIVE,
    )


class TelemetrySettings(Table):
    """`[telemetry]`"""

    endpoint: str = setting(
        "",
        "OTLP gRPC collector that spans go to, such as `http://127.0.0.1:4317`; empty turns tracing off "
        "unless a standard `OTEL_EXPORTER_OTLP_ENDPOINT` is in the environment, which wins over this key. "
        "Metrics go on to the collector of the start.",
        reload=Reload.LIVE,
    )
    sample_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = setting(
        1.0,
        "Share of traces recorded when the caller has not decided; `OTEL_TRACES_SAMPLER` wins over it.",
        reload=Reload.LIVE,
    )
    headers: dict[str, str] = setting(
        {}, "Headers sent to the collector with each export.", reload=Reload.LIVE, secret=True
    )
    resource: dict[str, str] = setting(
        {}, "Resource attributes added to each span, such as a cluster name.", reload=Reload.LIVE
    )
    metrics: bool = setting(False, "Export metrics to the same collector too.")
    metrics_interval_seconds: Annotated[float, msgspec.Meta(ge=1)] = setting(
        30.0, "Seconds between two exports of metrics."
    )


class MetricsSettings(Table):
    """`[metrics]`"""

    address: str = setting(
        "",
        "Where Prometheus scrapes `/metrics`: `host:port`, or `unix:/path` for a socket of mode 0600; empty "
        "turns the endpoint off. `TRIPTYCH_METRICS_ADDRESS` in the environment wins over it, so that "
        "streaming instances can have an address each.",
    )


class ServiceSettings(Table):
    """What every daemon has."""

    socket: str = setting(
        "", "Path of the unix socket that gRPC is served on; empty means the daemon's default."
    )
    grace_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = setting(
        20.0,
        "How long a stop waits for RPCs in flight before it cancels them, in seconds. systemd, which kills "
        "after the unit's `TimeoutStopSec=` of 45 s, is asked for 25 s more than this.",
        reload=Reload.LIVE,
    )
    max_message_bytes: Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 30)] = setting(
        16 << 20, "Largest gRPC message taken. What is sent, its receiver limits: the kubelet to 16 MiB."
    )
    log: LogSettings = setting(LogSettings(), "Logs.")
    telemetry: TelemetrySettings = setting(TelemetrySettings(), "OpenTelemetry traces and metrics.")
    metrics: MetricsSettings = setting(MetricsSettings(), "The Prometheus endpoint.")
