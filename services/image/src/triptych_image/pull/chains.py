"""Linking layers to an image."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from triptych_oci import Digest

from triptych_image.layers import implied
from triptych_image.store import Hold, LayerRecord, Store, disk_error, layer_key


@dataclass(frozen=True, slots=True)
class Chain:
    """The layers of an image as they are mounted.

    :param layers: keys, lowest first.
    :param root_mode: mode and owner that the root directory of the image has.
    """

    layers: tuple[str, ...]
    root_mode: int
    root_uid: int
    root_gid: int


async def finish_chain(store: Store, hold: Hold, keys: Sequence[str]) -> Chain:
    """See that the directories which layers imply have the attributes that the image gives them.

    :param keys: of layers in the store, lowest first.
    """
    records = store.snapshot.layers
    # overlayfs refuses the same directory twice; of a layer that repeats, the upper one decides.
    unique = list(dict.fromkeys(reversed(keys)))
    trees = [implied.LayerTree(store.paths.layer(key), frozenset(records[key].implied)) for key in unique]

    def look() -> tuple[implied.Attributes, dict[str, implied.Attributes]]:
        return implied.attributes(trees, ""), implied.wrong(trees)

    root, repairs = await asyncio.to_thread(look)
    if repairs:
        unique.insert(0, await _add_repair(store, hold, unique, trees, repairs))
    return Chain(tuple(reversed(unique)), root.mode, root.uid, root.gid)


async def _add_repair(
    store: Store,
    hold: Hold,
    keys: Sequence[str],
    trees: Sequence[implied.LayerTree],
    repairs: dict[str, implied.Attributes],
) -> str:
    """Make the layer that corrects implied directories, unless there is one for the same chain."""
    name = f"triptych:repair:{Digest.of(' '.join(keys).encode())}"
    key = layer_key(name)
    if await hold.layers([key]):
        return key
    tree = store.paths.scratch()
    tape = tree.with_suffix(".tape")

    def make() -> int:
        tree.mkdir(mode=0o755)
        tape.touch(mode=0o600)
        return implied.make_repair(tree, trees, repairs)

    try:
        inodes = await asyncio.to_thread(make)
        await store.add_layer(_repair_record(store, key, name, inodes), tree, tape)
    except FileExistsError:
        pass  # another pull of the same image was quicker
    except OSError as error:
        raise disk_error(error, "make directories of the image") from error
    finally:
        await store.drop(tree, tape)
    return key


def _repair_record(store: Store, key: str, name: str, inodes: int) -> LayerRecord:
    return LayerRecord(
        key=key,
        diff_id=name,
        size=4096 * inodes,
        inodes=inodes + 1,
        complete=False,
        implied=(),
        opaque=(),
        boot=store.boot,
        created_at=time.time_ns(),
    )
