"""The pod network: the face that the life cycle of pods uses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

import msgspec
from triptych_errors import TriptychError
from triptych_linux.process import shielded

from triptych_runtime.lifecycle import fault
from triptych_runtime.locks import Locks
from triptych_runtime.network import _arguments, _podcidr, _results, _versions
from triptych_runtime.network._catalog import Catalog
from triptych_runtime.network._chain import Chain, living
from triptych_runtime.network._config import NetworkConfig
from triptych_runtime.network._plugins import Plugins
from triptych_runtime.network._records import Attachment, Phase, Record, Records
from triptych_runtime.network._retries import Retries
from triptych_runtime.network._turns import Turns
from triptych_runtime.network.errors import AttachmentUnknown, RecordUnwritable, TeardownFailed
from triptych_runtime.network.model import NetworkResult, NetworkStatus, PodAttachment
from triptych_runtime.network.settings import NetworkSettings

log = logging.getLogger(__name__)

_DISK_SECONDS = 30.0
# How long a garbage collection waits for pods that are being attached, while others wait for it.
_GC_PATIENCE = 10.0


class Network:
    """Attaches pods to the node's networks by running CNI plugins.

    :param root: the daemon's directory of what survives a reboot; the setting `cache_dir` may name another.
    """

    def __init__(self, settings: NetworkSettings, root: Path) -> None:
        directory = Path(settings.cache_dir) if settings.cache_dir else root / "network"
        self._plugins = Plugins(settings)
        self._chain = Chain(self._plugins)
        self._records = Records(directory)
        self._catalog = Catalog(self._plugins, self._chain, directory / "pod-cidr")
        self._retries = Retries(self.teardown, lambda: self._plugins.settings.retry_seconds)
        self._locks = Locks()
        self._turns = Turns()

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Load the configuration, then watch it and retry unfinished teardowns as tasks of `tasks`.

        Attachments that a former run left half made or half undone are undone in the background; plugins
        that it left at work on them are killed first.
        """
        await asyncio.to_thread(self._records.load)
        await self._catalog.start(tasks)
        half_done = [i for i, record in self._records.all().items() if record.phase is not Phase.ADDED]
        if half_done:
            await self._plugins.end_orphans(half_done)
        for sandbox_id in half_done:
            self._retries.add(sandbox_id)
        tasks.create_task(self._retries.run(), name="network teardown")

    def reconfigure(self, settings: NetworkSettings) -> None:
        """Take the settings that may change while running (deadlines, idle plugins)."""
        self._plugins.settings = settings

    def status(self) -> NetworkStatus:
        """Whether pods can be attached now; answers at once."""
        return self._catalog.status()

    def result(self, sandbox_id: str) -> NetworkResult | None:
        """The kept result of a pod that is attached; None when it is not."""
        record = self._records.get(sandbox_id)
        return self._summary(record) if record is not None and record.phase is Phase.ADDED else None

    def attached(self) -> frozenset[str]:
        """IDs of all pods with an attachment, whole or not; for the reconciler."""
        return frozenset(self._records.all())

    async def setup(self, pod: PodAttachment) -> NetworkResult:
        """Attach a pod; for one that is attached already, its result.

        When it fails or is cancelled, what was done is undone before it raises; what cannot be undone is
        kept and tried again in the background.

        :raises NetworkNotReady: no usable configuration.
        :raises AnnotationInvalid: bandwidth annotations out of range.
        :raises PluginFailed, PluginBusy, PluginMissing, PluginTimeout, ResultInvalid: from a plugin.
        """
        async with self._locks.hold(pod.sandbox_id), self._turns.together():
            known = self._records.get(pod.sandbox_id)
            if known is not None and known.phase is Phase.ADDED and known.pod.netns == pod.netns:
                return self._summary(known)
            if known is not None:
                await self._undo(known, None)
            return await self._attach(pod)

    async def _attach(self, pod: PodAttachment) -> NetworkResult:
        networks = self._catalog.networks
        arguments = _arguments.capability_arguments(pod, _podcidr.ranges(self._catalog.subnets))
        attachments = tuple(
            Attachment(config=network, ifname=f"eth{index}", arguments=arguments)
            for index, network in enumerate(networks)
        )
        record = Record(phase=Phase.ADDING, pod=pod, attachments=attachments)
        try:
            await self._write(record)
            fault("network.recorded")
            for index, attachment in enumerate(attachments):
                result = await self._chain.add(pod, attachment)
                fault("network.added")
                done = msgspec.structs.replace(attachment, result=result)
                changed = (*record.attachments[:index], done, *record.attachments[index + 1 :])
                record = msgspec.structs.replace(record, attachments=changed)
            summary = self._summary(record)
            record = msgspec.structs.replace(record, phase=Phase.ADDED)
            await self._write(record)
        except BaseException:
            await self._abandon(record)
            raise
        return summary

    async def _abandon(self, record: Record) -> None:
        """Undo a half made attachment, whatever became of the caller; failures go to the background."""
        sandbox_id = record.pod.sandbox_id
        try:
            await shielded(self._undo(record, record.pod.netns), self._patience(record))
        except (TriptychError, OSError) as error:
            log.warning(
                "could not undo a failed attachment", extra={"sandbox": sandbox_id, "error": str(error)}
            )
            self._retries.add(sandbox_id)

    async def teardown(self, sandbox_id: str, netns: Path | None) -> None:
        """Detach a pod; idempotent; nothing happens for a pod that was never attached.

        Call it before the namespaces are destroyed; `netns` None or gone is fine too. What fails is kept and
        retried in the background until it succeeds. Runs to its end even when the caller is cancelled.

        :raises TeardownFailed: with the reasons; calling again tries again.
        """
        async with self._locks.hold(sandbox_id), self._turns.together():
            record = self._records.get(sandbox_id)
            if record is None:
                self._retries.forget(sandbox_id)
                return
            try:
                await shielded(self._undo(record, netns), self._patience(record))
            except TimeoutError:
                self._retries.add(sandbox_id)
                raise TeardownFailed(sandbox_id, ["no end before the deadline"]) from None
            except TriptychError:
                self._retries.add(sandbox_id)
                raise
            self._retries.forget(sandbox_id)

    async def _undo(self, record: Record, netns: Path | None) -> None:
        """DEL of every attachment, the last first; forgets the pod when all succeeded."""
        record = msgspec.structs.replace(record, phase=Phase.DELETING)
        try:
            await self._write(record)
        except RecordUnwritable as error:
            # A full disk must not keep pods from ending; the older record leads to the same teardown.
            log.warning("network record not updated", extra={"error": str(error)})
        failures: list[TriptychError] = []
        alive = living(netns or record.pod.netns)
        fault("network.deleting")
        for attachment in reversed(record.attachments):
            failures += await self._chain.delete(record.pod, attachment, alive)
        fault("network.deleted")
        if failures:
            raise TeardownFailed(record.pod.sandbox_id, [str(failure) for failure in failures])
        await shielded(asyncio.to_thread(self._records.drop, record.pod.sandbox_id), _DISK_SECONDS)

    async def _write(self, record: Record) -> None:
        """Write a record; shielded, so that a cancelled write cannot come after a later one."""
        try:
            await shielded(asyncio.to_thread(self._records.put, record), _DISK_SECONDS)
        except OSError as error:
            raise RecordUnwritable(
                f"network record of pod sandbox {record.pod.sandbox_id}: {error}"
            ) from error

    def _patience(self, record: Record) -> float:
        """How long all plugins of a pod may take together to detach it."""
        plugins = sum(len(attachment.config.plugins) for attachment in record.attachments)
        return 10.0 + self._plugins.settings.teardown_deadline * plugins

    async def check(self, sandbox_id: str) -> None:
        """CHECK of every plugin: raises the first failure.

        :raises AttachmentUnknown: the pod is not attached.
        """
        async with self._locks.hold(sandbox_id):
            record = self._records.get(sandbox_id)
            if record is None or record.phase is not Phase.ADDED:
                raise AttachmentUnknown(sandbox_id)
            for attachment in record.attachments:
                await self._chain.check(record.pod, attachment)

    async def gc(self, valid_ids: Collection[str]) -> None:
        """Detach every kept attachment that is not in `valid_ids`, then GC (CNI 1.1) of every network.

        Failures are logged: detaching is tried again in the background, GC with the next call.
        """
        valid = frozenset(valid_ids)
        for sandbox_id in self.attached() - valid:
            try:
                await self.teardown(sandbox_id, None)
            except TeardownFailed as error:
                log.warning(
                    "could not detach a pod that is gone", extra={"sandbox": sandbox_id, "error": str(error)}
                )
        for network in self._catalog.usable:
            if network.disable_gc or not _versions.at_least(network.version, "1.1.0"):
                continue
            try:
                async with self._turns.alone(_GC_PATIENCE):
                    await self._collect(network)
            except TimeoutError:
                log.warning(
                    "no garbage collection: pods are being attached", extra={"network": network.name}
                )

    async def _collect(self, network: NetworkConfig) -> None:
        kept = [
            (sandbox_id, attachment.ifname)
            for sandbox_id, record in self._records.all().items()
            for attachment in record.attachments
            if attachment.config.name == network.name
        ]
        for failure in await self._chain.collect(network, kept):
            log.warning("garbage collection failed", extra={"network": network.name, "error": str(failure)})

    async def set_pod_cidr(self, cidr: str) -> None:
        """The node's pod subnets, one or several joined by commas; kept over restarts; "" changes nothing.

        :raises PodCidrInvalid: when one is not a subnet.
        """
        await self._catalog.set_subnets(cidr)

    def _summary(self, record: Record) -> NetworkResult:
        results = [(a.config.name, a.ifname, a.result or {}) for a in record.attachments]
        return _results.summarise(results, self._plugins.settings.ip_preference)
