"""Linking layers to an image."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from triptych_oci import Digest

from triptych_image.errors import ImageMalformed
from triptych_image.layers.implied import Attributes, LayerTree, attributes, make_repair, wrong
from triptych_image.layers.marks import make_hiding
from triptych_image.store import Hold, LayerRecord, Store, disk_error, layer_key

_LOOK = 8
_LOOKS_MAX = 32_000_000
"""What looking directories up in layers may cost: a name is 1, each look `_LOOK` more. Half a minute."""


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
    """See that a mount shows what the layers of an image mean together.

    Layers that the store makes for it go where they belong: a root that is opaque gets whiteouts of what it
    hides, since overlayfs merges roots whatever their mark says, and on top come the directories that layers
    imply, with the attributes that the image gives them.

    :param keys: of layers in the store, lowest first.
    :raises ImageMalformed: when that is more than can be done.
    """
    # overlayfs refuses the same directory twice; of a layer that repeats, the upper one decides.
    unique = list(dict.fromkeys(reversed(keys)))
    trees = await _trees(store, unique)
    depth = next((place for place, tree in enumerate(trees, 1) if "" in tree.opaque), len(unique))
    if hidden := unique[depth:]:
        roots = [store.paths.layer(key) for key in hidden]
        what = f"hide {' '.join(hidden)}"
        made = await _made(store, hold, what, lambda tree: make_hiding(tree, roots))
        unique.insert(depth, made)
        trees.insert(depth, LayerTree(store.paths.layer(made), frozenset({""})))

    def look() -> tuple[Attributes, dict[str, Attributes]]:
        return attributes(trees, ""), wrong(trees)

    root, repairs = await asyncio.to_thread(look)
    if repairs:
        what = " ".join(unique)
        repair = await _made(store, hold, what, lambda tree: make_repair(tree, trees, repairs))
        unique.insert(0, repair)
    return Chain(tuple(reversed(unique)), root.mode, root.uid, root.gid)


async def _trees(store: Store, keys: Sequence[str]) -> list[LayerTree]:
    """The layers with their marks, of which a stranger's image may have more than one can look up.

    :raises ImageMalformed: when it has.
    """
    trees: list[LayerTree] = []
    looks = 0
    for key in keys:
        marks = await store.layer_marks(key)
        looks += sum(_LOOK + path.count("/") for path in marks.implied) * len(keys)
        if looks > _LOOKS_MAX:
            raise ImageMalformed("the layers of the image leave out the entries of too many directories")
        trees.append(LayerTree(store.paths.layer(key), frozenset(marks.implied), frozenset(marks.opaque)))
    return trees


async def _made(store: Store, hold: Hold, what: str, make: Callable[[Path], int]) -> str:
    """Make a layer of the store's own, unless there is one for the same; returns its key.

    :param what: what it does to which layers.
    :param make: fills its directory, in a thread; returns the number of inodes.
    """
    name = f"triptych:repair:{Digest.of(what.encode())}"
    key = layer_key(name)
    if await hold.layers([key]):
        return key
    tree = store.paths.scratch()
    tape = tree.with_suffix(".tape")

    def work() -> int:
        tree.mkdir(mode=0o755)
        tape.touch(mode=0o600)
        return make(tree)

    try:
        inodes = await asyncio.to_thread(work)
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
        boot=store.boot,
        created_at=time.time_ns(),
    )
