"""Pipes for the stdio of a process that has no terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os

from triptych_streaming.protocol.channels import Channel, StreamSet

_STDIN_PIPE = 1 << 18
"""Room in the kernel for input, so that a process that reads little at a time costs few turns."""


class Stdio:
    """Both ends of the pipes, by channel; none for a terminal."""

    def __init__(self, streams: StreamSet) -> None:
        self.theirs: dict[Channel, int] = {}
        self.ours: dict[Channel, int] = {}
        if streams.tty:
            return
        try:
            if streams.stdin:
                self.theirs[Channel.STDIN], self.ours[Channel.STDIN] = os.pipe2(os.O_CLOEXEC)
                with contextlib.suppress(OSError):  # a wish: the system limits what all pipes may hold
                    fcntl.fcntl(self.ours[Channel.STDIN], fcntl.F_SETPIPE_SZ, _STDIN_PIPE)
            # Standard error is read even where the client does not want it: the runtime complains there.
            for channel, wanted in ((Channel.STDOUT, streams.stdout), (Channel.STDERR, True)):
                if wanted:
                    self.ours[channel], self.theirs[channel] = os.pipe2(os.O_CLOEXEC)
            for fd in self.ours.values():
                os.set_blocking(fd, False)
        except BaseException:
            close_all(self.theirs)
            close_all(self.ours)
            raise


def close_all(fds: dict[Channel, int]) -> None:
    """Close and forget descriptors."""
    while fds:
        os.close(fds.popitem()[1])
