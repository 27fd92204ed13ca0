"""The answers of all plugins to one request, merged: what each changes, the next one sees.

Plugins are asked one after the other, in the order of their indexes. Whoever wants what another plugin set
must remove it first; anything else is a conflict, and fails the request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nri.v1alpha1 import nri_pb2

from triptych_runtime.errors import AdjustmentRefused, PluginConflict
from triptych_runtime.nri.merge_parts import ADJUSTMENT, RDT, RESOURCES
from triptych_runtime.nri.owners import Claim, Owners

_ARGS: Final[Claim] = (nri_pb2.Field.Args, None)


class CreateMerge:
    """The adjustment of a container that is being created, and updates of others.

    :ivar request: for the next plugin; `apply` changes its container.
    :ivar owners: who adjusted what so far.
    """

    def __init__(self, request: nri_pb2.CreateContainerRequest) -> None:
        self.request = request
        self.owners = Owners()
        self._asked = nri_pb2.Container()
        self._asked.CopyFrom(request.container)
        self._adjust = nri_pb2.ContainerAdjustment()
        self._updates = _Updates(self.owners)

    def apply(self, response: nri_pb2.CreateContainerResponse, plugin: str) -> None:
        """Take over what a plugin ("10-name") answered.

        :raises PluginConflict: when it wants what another plugin set.
        :raises AdjustmentRefused: when it updates the very container.
        """
        if response.HasField("adjust"):
            self._take(response.adjust, plugin)
        for update in response.update:
            if update.container_id == self._asked.id:
                raise AdjustmentRefused(
                    f'plugin "{plugin}" asked for an update of container {self._asked.id}, '
                    f"which is being created"
                )
            self._updates.apply(update, plugin)

    def response(self) -> nri_pb2.CreateContainerResponse:
        """The answer of all plugins."""
        return nri_pb2.CreateContainerResponse(adjust=self._adjust, update=self._updates.others)

    def validation(
        self, plugins: Iterable[nri_pb2.PluginInstance]
    ) -> nri_pb2.ValidateContainerAdjustmentRequest:
        """For validating plugins: the container as it was asked for, and what is to become of it."""
        return nri_pb2.ValidateContainerAdjustmentRequest(
            pod=self.request.pod,
            container=self._asked,
            adjust=self._adjust,
            update=self._updates.others,
            owners=self.owners.to_message(),
            plugins=plugins,
        )

    def _take(self, change: nri_pb2.ContainerAdjustment, plugin: str) -> None:
        container = self.request.container
        self._take_args(list(change.args), plugin)
        self._take_hooks(change.hooks, plugin)
        if change.linux.rdt.remove:
            self.owners.clear(container.id, RDT, plugin)
            self._adjust.linux.rdt.CopyFrom(nri_pb2.LinuxRdt(remove=True))
            container.linux.ClearField("rdt")
        for part in ADJUSTMENT:
            self.owners.clear(container.id, part.cleared(change), plugin)
            self.owners.claim(container.id, part.claims(change), plugin)
            part.take(change, self._adjust)
            part.take(change, container)
        if change.linux.HasField("resources"):
            wanted = change.linux.resources
            self.owners.claim(container.id, _claims(wanted), plugin)
            for target in (self._adjust.linux.resources, container.linux.resources):
                _take_resources(wanted, target)
                target.devices.extend(wanted.devices)

    def _take_args(self, args: list[str], plugin: str) -> None:
        if not args:
            return
        container = self.request.container
        if not args[0]:
            self.owners.clear(container.id, [_ARGS], plugin)
            args = args[1:]
        if args:
            self.owners.claim(container.id, [_ARGS], plugin)
        self._adjust.args[:] = args
        container.args[:] = args or self._asked.args

    def _take_hooks(self, hooks: nri_pb2.Hooks, plugin: str) -> None:
        if not hooks.ListFields():
            return
        self.owners.collect(self._asked.id, nri_pb2.Field.OciHooks, plugin)
        self._adjust.hooks.MergeFrom(hooks)
        self.request.container.hooks.MergeFrom(hooks)


class UpdateMerge:
    """The resources of a container that is being updated, and those of others.

    :ivar request: for the next plugin; `apply` changes its resources. None while a container stops: then
        there are only others.
    """

    def __init__(self, request: nri_pb2.UpdateContainerRequest | None) -> None:
        self.request = request
        self._updates = _Updates(Owners(), request)

    def apply(
        self, response: nri_pb2.UpdateContainerResponse | nri_pb2.StopContainerResponse, plugin: str
    ) -> None:
        """Take over what a plugin ("10-name") answered.

        :raises PluginConflict: when it wants what another plugin set, and would not do without.
        """
        for update in response.update:
            self._updates.apply(update, plugin)

    def response(self) -> nri_pb2.UpdateContainerResponse:
        """The answer of all plugins; the requested container, when one of them changed it, comes last and
        with all of its resources."""
        return nri_pb2.UpdateContainerResponse(update=[*self._updates.others, *self._updates.requested])


class _Updates:
    """Updates of containers by the plugins of one request.

    :ivar requested: the one of the request's container, if a plugin has one. :ivar others: the rest.
    """

    def __init__(self, owners: Owners, request: nri_pb2.UpdateContainerRequest | None = None) -> None:
        self.requested: list[nri_pb2.ContainerUpdate] = []
        self.others: list[nri_pb2.ContainerUpdate] = []
        self._owners = owners
        self._request = request

    def apply(self, update: nri_pb2.ContainerUpdate, plugin: str) -> None:
        """:raises PluginConflict: unless the update says that its failure is to be ignored."""
        merged = self._of(update)
        if not update.linux.HasField("resources"):
            return
        wanted = update.linux.resources
        try:
            self._owners.claim(update.container_id, _claims(wanted), plugin)
        except PluginConflict:
            if update.ignore_failure:
                return
            raise
        _take_resources(wanted, merged.linux.resources)
        if self._request is not None and self._is_requested(update):
            self._request.linux_resources.CopyFrom(merged.linux.resources)

    def _is_requested(self, update: nri_pb2.ContainerUpdate) -> bool:
        return self._request is not None and update.container_id == self._request.container.id

    def _of(self, update: nri_pb2.ContainerUpdate) -> nri_pb2.ContainerUpdate:
        """What is merged for its container; it may fail if all that want it say so."""
        updates = self.requested if self._is_requested(update) else self.others
        for known in updates:
            if known.container_id == update.container_id:
                known.ignore_failure = known.ignore_failure and update.ignore_failure
                return known
        made = nri_pb2.ContainerUpdate(
            container_id=update.container_id, ignore_failure=update.ignore_failure
        )
        made.linux.resources.SetInParent()
        if self._request is not None and self._is_requested(update):
            made.linux.resources.CopyFrom(self._request.linux_resources)
        updates.append(made)
        return made


def _claims(resources: nri_pb2.LinuxResources) -> list[Claim]:
    return [claim for part in RESOURCES for claim in part.claims(resources)]


def _take_resources(wanted: nri_pb2.LinuxResources, target: nri_pb2.LinuxResources) -> None:
    for part in RESOURCES:
        part.take(wanted, target)
