"""Environment values that are not UTF-8: a program that adds them and becomes the real command.

config.json is JSON, whose strings are Unicode, and OCI runtimes hold to it (seen with both): crun 1.8
refuses raw bytes ("invalid bytes in UTF8 string") and writes a lone surrogate as three other bytes; runc 1.1
replaces either by U+FFFD. No spelling of the value survives, so it cannot travel in the document.

Such a container gets a program of its own instead: an ELF file of about 600 bytes (`launcher_*.S`, no libc,
nothing but execve) with the values in it, bind-mounted read-only in the container and put before the
command. It adds its values to the environment it was given, looks the command up in PATH as the OCI runtime
would have, and executes it: same process, same user, capabilities, filters and descriptors. A command that
does not exist is then exit code 127 (126: not executable), as with a shell, instead of a failed start.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from triptych_errors import FailedPrecondition

from triptych_runtime.spec.inputs import BundleFile, Document

#: Name of the program in the bundle.
PROGRAM: Final = "environment"
# Below /dev, a tmpfs of the container, nothing of it stays behind in the writable layer.
_DESTINATION: Final = "/dev/.triptych-env"
_DESTINATION_WITHOUT_DEV: Final = "/.triptych-env"
_DESTINATIONS: Final = (_DESTINATION, _DESTINATION_WITHOUT_DEV)
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56

CODE_X86_64: Final = base64.b64decode(
    "SIscJEyNZCQQTI1s3BAx0kmDfNUAAHQFSP/C6/NIjTVkAQAASIsOSI1EEQJIweADSCnESIPk8EmJ5kiJ50iDxgjzSKVMie5IjUoB"
    "80ilQb8CAAAASYssJEiF7Q+EzgAAAEiJ74oHSP/HPC8PhKkAAACEwHXvSIHsACAAAEmLXQBIhdsPhKYAAABJg8UIgTtQQVRIdeeA"
    "ewQ9deFIg8MFSInnSI2MJP4PAACKA4TAdCU8OnQhSDnPcwqIB0j/x0j/w+vnSP/DigOEwHRjPDp180j/w+vKSDnndAbGBy9I/8dI"
    "ie5IjYwk/h8AAKyqSDnPcz2EwHX1SInnTInmTInyuDsAAAAPBYP4/nQF99hBiceAOwB0Gkj/w+uFSInvTInmTInyuDsAAAAPBffY"
    "QYnHvwIAAABIjTUgAAAAuikAAAC4AQAAAA8Fv38AAABBg/8CdAL/z7g8AAAADwV0cmlwdHljaDogdGhlIGNvbW1hbmQgY2Fubm90"
    "IGJlIGV4ZWN1dGVkCg8fQAA="
)
CODE_AARCH64: Final = base64.b64decode(
    "8wNA+fRDAJGVDhOLAQCA0qJ6YfhiAAC0IQQAkf3//xdDDQAQZIRA+IUAAYulDACRpfh/kuZvJcvfAACR9gMGqqQAALRihED4woQA"
    "+IQEANH8//8X4wMVqmKEQPjChAD4wv//tVkAgFKXAkD5FwgAtOMDF6piFEA4X7wAccAGAFSi//81/wtA0YkIABi4hkD4+AYAtAID"
    "QLlfAAlrgf//VAITQDlf9ABxIf//VBgXAJHjAwCRZPg/kQIDQDnCAQA0X+gAcYABAFR/AATrggAAVGIUADgYBwCR+P//FwIfQDhi"
    "BAA0X+gAcaH//1QYBwCR8P//F+UDAJGk/D+RhPw/kX8ABetgAABU4gWAUmIUADjmAxeqwhRAOGIUADh/AATrYgIAVIL//zXgAwCR"
    "4QMUquIDFqqoG4DSAQAA1B8IADFAAABU+QMASwIXQDgCAQA02P//F+ADF6rhAxSq4gMWqqgbgNIBAADU+QMAS0AAgNJhAQAQIgWA"
    "0ggIgNIBAADU4A+A0j8LAHFAAABUwA+A0qgLgNIBAADUUEFUSHRyaXB0eWNoOiB0aGUgY29tbWFuZCBjYW5ub3QgYmUgZXhlY3V0"
    "ZWQKAAAA"
)
# uname -m: ELF machine number (elf.h) and code.
_MACHINES: Final = {"x86_64": (62, CODE_X86_64), "aarch64": (183, CODE_AARCH64)}


def install(document: Document, entries: Sequence[bytes], bundle: Path, machine: str) -> BundleFile:
    """Put the program before the document's command; the file must be in the bundle.

    :param entries: b"NAME=value", not in the document's own environment.
    :raises FailedPrecondition: on a machine that there is no program for.
    """
    path = bundle / PROGRAM
    content = program(entries, machine)
    own_dev = any(m["destination"] == "/dev" and m["type"] == "tmpfs" for m in document["mounts"])
    destination = _DESTINATION if own_dev else _DESTINATION_WITHOUT_DEV
    document["mounts"].append(
        {
            "destination": destination,
            "type": "bind",
            "source": str(path),
            "options": ["bind", "ro", "nosuid", "nodev"],
        }
    )
    process = document["process"]
    process["args"] = [destination, *process["args"]]
    return BundleFile(path, content, 0o555)


def uninstall(document: Document) -> None:
    """Take back what `install` did to the document."""
    document["mounts"][:] = [m for m in document["mounts"] if m["destination"] not in _DESTINATIONS]
    process = document["process"]
    process["args"] = list(unwrapped(process["args"]))


def wrap_exec(running: Sequence[str], command: Sequence[str]) -> list[str]:
    """The arguments of an exec in a container whose command is `running`."""
    return [running[0], *command] if running[0] in _DESTINATIONS else list(command)


def unwrapped(arguments: Sequence[str]) -> Sequence[str]:
    """A container's arguments as they were asked for."""
    return arguments[1:] if arguments and arguments[0] in _DESTINATIONS else arguments


def program(entries: Sequence[bytes], machine: str) -> bytes:
    """The ELF file: one segment with the code, a count, the addresses of the entries, and the entries.

    :raises FailedPrecondition: on a machine that there is no code for.
    """
    if machine not in _MACHINES:
        name = entries[0].partition(b"=")[0].decode()
        raise FailedPrecondition(
            f"envs: the value of {name} is not UTF-8, which cannot be passed on {machine}"
        )
    number, code = _MACHINES[machine]
    table = _BASE + _HEADERS + len(code)
    address = table + 8 * (1 + len(entries))
    pointers = [len(entries)]
    for entry in entries:
        pointers.append(address)
        address += len(entry) + 1
    data = struct.pack(f"<{len(pointers)}Q", *pointers) + b"".join(entry + b"\0" for entry in entries)
    size = _HEADERS + len(code) + len(data)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code + data
