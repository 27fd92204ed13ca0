"""Stop signals: the CRI's enum, the image's StopSignal, and the kernel's numbers."""

from __future__ import annotations

import re
import signal
from typing import Final

from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument

from triptych_runtime.spec.inputs import StopSignal

_PREFIX: Final = "SIGNAL_"
_RTMIN: Final = int(signal.SIGRTMIN)
_RTMAX: Final = int(signal.SIGRTMAX)
_REALTIME: Final = re.compile(r"SIGRT(MIN|MAX)(?:([+-])(\d{1,2}))?")


def stop_signal(config: api_pb2.ContainerConfig, image_signal: str) -> StopSignal:
    """The request's signal, else the image's, else SIGTERM.

    :raises InvalidArgument: when either is no signal.
    """
    if config.stop_signal not in api_pb2.Signal.values():
        raise InvalidArgument(f"stop_signal: {int(config.stop_signal)} is no signal of the CRI")
    if config.stop_signal != api_pb2.SIGNAL_RUNTIME_DEFAULT:
        return _make(number_of_enum(config.stop_signal), config.stop_signal)
    if not image_signal:
        return _make(int(signal.SIGTERM), api_pb2.SIGNAL_SIGTERM)
    number = parse(image_signal)
    return _make(number, enum_of_number(number))


def parse(text: str) -> int:
    """The number of "15", "TERM", "SIGTERM", "SIGRTMIN+3" or "SIGRTMAX-2".

    :raises InvalidArgument: when it is none.
    """
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= _RTMAX:
        return int(text)
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    number = _by_name(name)
    if number is None:
        raise InvalidArgument(f"stop signal {text!r} is no signal")
    return number


def number_of_enum(value: api_pb2.Signal.ValueType) -> int:
    """The kernel's number of a CRI signal other than SIGNAL_RUNTIME_DEFAULT."""
    name = api_pb2.Signal.Name(value).removeprefix(_PREFIX)
    number = _by_name(name.replace("MINPLUS", "MIN+").replace("MAXMINUS", "MAX-"))
    if number is None:
        raise InvalidArgument(f"stop_signal: {name} is no signal here")
    return number


def enum_of_number(number: int) -> api_pb2.Signal.ValueType:
    """The CRI's name of a kernel number; SIGNAL_RUNTIME_DEFAULT for one that it has no name for."""
    if number >= _RTMIN:
        middle = (_RTMIN + _RTMAX) // 2
        offset = number - _RTMIN if number <= middle else _RTMAX - number
        name = "RTMINPLUS" if number <= middle else "RTMAXMINUS"
        text = f"SIG{name}{offset}" if offset else f"SIG{name[:5]}"
    else:
        text = signal.Signals(number).name if number in _NUMBERS else ""
    known = api_pb2.Signal.keys()
    full = f"{_PREFIX}{text}"
    return api_pb2.Signal.Value(full) if full in known else api_pb2.SIGNAL_RUNTIME_DEFAULT


_NUMBERS: Final = frozenset(int(s) for s in signal.Signals)


def _by_name(name: str) -> int | None:
    match = _REALTIME.fullmatch(name)
    if match is None:
        return int(signal.Signals[name]) if name in signal.Signals.__members__ else None
    base = _RTMIN if match[1] == "MIN" else _RTMAX
    offset = int(match[3] or 0) * (-1 if match[2] == "-" else 1)
    return base + offset if _RTMIN <= base + offset <= _RTMAX else None


def _make(number: int, reported: api_pb2.Signal.ValueType) -> StopSignal:
    return StopSignal(number, _name(number), reported)


def _name(number: int) -> str:
    if number == _RTMIN or number == _RTMAX or number < _RTMIN:
        return signal.Signals(number).name if number in _NUMBERS else str(number)
    return f"SIGRTMIN+{number - _RTMIN}"
