"""An NRI plugin for tests: notes what it is told, and answers as it is bidden.

Run as a program it is one that the runtime daemon starts: it notes the methods it is called by, a line each,
in the file that its configuration names.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from nri.v1alpha1 import nri_pb2 as nri
from triptych_errors import Unimplemented
from triptych_ttrpc import Handlers, Peer, Role

from triptych_dev.testing.driver import wait_until

_PLUGIN = nri.DESCRIPTOR.services_by_name["Plugin"]
_RUNTIME = nri.DESCRIPTOR.services_by_name["Runtime"].full_name
_SECONDS = 30.0

Answer = Callable[[Any], Message | None]


class NriPlugin:
    """A plugin in a thread of its own; make it with `connected`.

    :ivar told: method and request of each call, in order.
    :ivar answers: by method: gives the response to a request, None for an empty one, or raises.
    :ivar missing: methods that it does not know.
    """

    def __init__(self, name: str, index: str, events: Sequence[nri.Event.ValueType]) -> None:
        self.name = name
        self.index = index
        self.events = sum(1 << (event - 1) for event in events)
        self.told: list[tuple[str, Any]] = []
        self.answers: dict[str, Answer] = {}
        self.missing: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"NRI plugin {name}")
        self._peer: Peer | None = None

    def of(self, container_id: str) -> list[str]:
        """The methods by which it was told of a container."""
        return [
            method
            for method, request in self.told
            if "container" in request.DESCRIPTOR.fields_by_name and request.container.id == container_id
        ]

    def of_pod(self, sandbox_id: str) -> list[str]:
        """The methods by which it was told of a pod alone."""
        return [
            method
            for method, request in self.told
            if "pod" in request.DESCRIPTOR.fields_by_name
            and "container" not in request.DESCRIPTOR.fields_by_name
            and request.pod.id == sandbox_id
        ]

    def last(self, method: str) -> Any:
        """The last request of a method."""
        return [request for name, request in self.told if name == method][-1]

    def wait_for(self, method: str, of: str = "") -> None:
        """Wait until it was told by a method, of the container or pod `of`."""

        def told() -> list[str]:
            return self.of(of) + self.of_pod(of) if of else [name for name, _ in self.told]

        wait_until(f"NRI plugin {self.name} is told {method}", lambda: method in told())

    def update(self, *updates: nri.ContainerUpdate) -> list[nri.ContainerUpdate]:
        """Ask for updates; those that failed."""
        request = nri.UpdateContainersRequest(update=updates)
        answer = self._run(self._call("UpdateContainers", request, nri.UpdateContainersResponse))
        return list(answer.failed)

    @property
    def connected(self) -> bool:
        return self._peer is not None and not self._peer.closed.is_set()

    def start(self, connection: socket.socket) -> None:
        self._thread.start()
        self._run(self._start(connection))

    def stop(self) -> None:
        if self._peer is not None:
            self._run(self._peer.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    async def _start(self, connection: socket.socket) -> None:
        self._peer = Peer(connection, Role.PLUGIN)
        self._peer.serve(_PLUGIN.full_name, self._handlers())
        await self._peer.start()
        request = nri.RegisterPluginRequest(
            plugin_name=self.name, plugin_idx=self.index, NRI_version="v0.12.0"
        )
        await self._call("RegisterPlugin", request, nri.Empty)

    def _handlers(self) -> Handlers:
        def handler(name: str, response: type[Message]) -> Callable[[Any], Any]:
            async def handle(request: Any) -> Message:
                if name in self.missing:
                    raise Unimplemented(f"no method {name}")
                self.told.append((name, request))
                if name == "Configure":
                    return nri.ConfigureResponse(events=self.events)
                answer = await asyncio.to_thread(self.answers.get(name, lambda _: None), request)
                if name == "Synchronize" and answer is None:
                    return nri.SynchronizeResponse(more=request.more)
                return answer if answer is not None else response()

            return handle

        return {
            method.name: (
                getattr(nri, method.input_type.name),
                handler(method.name, getattr(nri, method.output_type.name)),
            )
            for method in _PLUGIN.methods
        }

    async def _call(self, method: str, request: Message, response: type[Any]) -> Any:
        assert self._peer is not None
        return await self._peer.call(_RUNTIME, method, request, response, timeout=_SECONDS)

    def _run(self, work: Any) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(_SECONDS)


@contextmanager
def connected(
    path: Path | str, name: str = "test", index: str = "10", events: Sequence[nri.Event.ValueType] = ()
) -> Iterator[NriPlugin]:
    """A plugin that has connected to a runtime's socket and was synchronized.

    :param events: those that it wants; none for all.
    """
    plugin = NriPlugin(name, index, events)
    # A daemon that has just started listens for plugins when it has looked at what there is.
    wait_until(f"there is {path}", Path(path).exists)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    try:
        plugin.start(connection)
        plugin.wait_for("Synchronize")
        yield plugin
    finally:
        plugin.stop()


def main() -> None:
    """Be started by a runtime daemon."""
    connection = socket.socket(fileno=int(os.environ["NRI_PLUGIN_SOCKET"]))
    plugin = NriPlugin(os.environ["NRI_PLUGIN_NAME"], os.environ["NRI_PLUGIN_IDX"], ())
    plugin.start(connection)
    plugin.wait_for("Configure")
    notes = Path(plugin.last("Configure").config)
    while plugin.connected:
        notes.write_text("".join(f"{method}\n" for method, _ in list(plugin.told)))
        threading.Event().wait(0.05)
    plugin.stop()


if __name__ == "__main__":
    main()
