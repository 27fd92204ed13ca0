"""Random histories of a tree, as layers: what is mounted in the end must be the tree."""

from __future__ import annotations

import io
import os
import random
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from runtime.v1 import api_pb2
from triptych.image.v1 import image_pb2
from triptych.rootfs.v1 import rootfs_pb2

pytestmark = pytest.mark.integration


class Node(NamedTuple):
    """A file ("f"), directory ("d") or symlink ("l"); `data` is contents or target."""

    kind: str
    mode: int
    uid: int
    data: str = ""


Tree = dict[str, Node]
MARK = Node("f", 0o600, 0)


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def without(tree: Tree, path: str) -> Tree:
    return {name: node for name, node in tree.items() if name != path and not name.startswith(f"{path}/")}


def changed(tree: Tree, rng: random.Random, step: int) -> tuple[Tree, set[str]]:
    """The tree after some changes, and the directories that were made anew."""
    anew: set[str] = set()
    for number in range(rng.randint(1, 8)):
        if rng.random() < 0.4 and tree:
            tree = without(tree, rng.choice(sorted(tree)))
            continue
        directories = ["", *(name for name, node in tree.items() if node.kind == "d")]
        path = join(rng.choice(directories), rng.choice("abcdefg"))
        before = tree.get(path)
        made = rng.choice(
            [
                Node("d", rng.choice([0o755, 0o711, 0o2755]), rng.choice([0, 7])),
                Node("f", rng.choice([0o644, 0o4755]), rng.choice([0, 9]), f"{step} {number}"),
                Node("l", 0o777, 0, rng.choice(["a", "b/c", "/d"])),
            ]
        )
        both = before is not None and before.kind == made.kind == "d"
        if both and rng.random() < 0.5:
            tree = {**tree, path: made}
            continue
        if both:
            anew.add(path)
        tree = {**without(tree, path), path: made}
    return tree, anew


def layer(old: Tree, new: Tree, opaque: set[str], rng: random.Random) -> bytes:
    """The archive that makes `new` of `old`; directories that stay as they are are often left out.

    :param opaque: directories of both whose contents are hidden and told again.
    """

    def hidden(path: str) -> bool:
        """Whether the layer hides what was at or below a path that it does not name."""
        while path:
            if path in opaque or (
                path in old and path in new and not old[path].kind == new[path].kind == "d"
            ):
                return True
            path = parent(path)
        return "" in opaque

    entries: list[tuple[str, Node]] = [(join(path, ".wh..wh..opq"), MARK) for path in sorted(opaque)]
    for path in sorted(set(old) - set(new)):
        above = parent(path)
        if (not above or (above in new and new[above].kind == "d")) and not hidden(above):
            entries.append((join(above, ".wh." + path.rpartition("/")[2]), MARK))
    for path, node in new.items():
        same = old.get(path) == node and not hidden(parent(path))
        if not same or (node.kind == "d" and rng.random() < 0.3):
            entries.append((path, node))
    if rng.random() < 0.5:
        rng.shuffle(entries)
    else:
        entries.sort()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, node in entries:
            info = tarfile.TarInfo(name)
            info.mode, info.uid = node.mode, node.uid
            data = node.data.encode()
            if node.kind == "f":
                info.size = len(data)
            else:
                info.type = tarfile.DIRTYPE if node.kind == "d" else tarfile.SYMTYPE
                info.linkname = node.data
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def history(seed: int) -> tuple[Tree, list[bytes]]:
    """A tree, and the layers that it came by."""
    rng = random.Random(seed)
    tree: Tree = {}
    layers: list[bytes] = []
    for step in range(rng.randint(2, 6)):
        after, opaque = changed(tree, rng, step)
        both = [path for path in after if path in tree and after[path].kind == tree[path].kind == "d"]
        opaque = {path for path in opaque if path in both}
        opaque |= {path for path in both if rng.random() < 0.15} | ({""} if rng.random() < 0.1 else set())
        layers.append(layer(tree, after, opaque, rng))
        tree = after
    return tree, layers


def mounted(root: Path) -> Tree:
    """A directory as a tree."""
    found: Tree = {}
    for path in root.rglob("*"):
        info = path.lstat()
        mode, name = stat.S_IMODE(info.st_mode), str(path.relative_to(root))
        if path.is_symlink():
            found[name] = Node("l", 0o777, info.st_uid, os.readlink(path))
        elif path.is_dir():
            found[name] = Node("d", mode, info.st_uid)
        else:
            found[name] = Node("f", mode, info.st_uid, path.read_text())
    return found


def test_what_is_mounted_is_what_the_layers_mean(
    daemon: Callable[..., Any], registry: Any, make_image: Any, tmp_path: Path
) -> None:
    running = daemon()
    view, below = tmp_path / "view", tmp_path / "below"
    view.mkdir()
    below.mkdir()
    for seed in range(40):
        tree, layers = history(seed)
        name = registry.add(f"x{seed}:1", make_image(*layers, config={"Labels": {"seed": str(seed)}}))
        spec = api_pb2.ImageSpec(image=name)
        running.images.PullImage(api_pb2.PullImageRequest(image=spec), timeout=60)
        request = rootfs_pb2.PrepareRootfsRequest(key=f"{seed:064x}", image=name)
        # overlayfs wants two directories at least.
        lower = ":".join([*running.rootfs.PrepareRootfs(request).overlay.lower, str(below)])
        subprocess.run(["mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "none", view], check=True)
        try:
            found = mounted(view)
        finally:
            subprocess.run(["umount", view], check=True)
        assert found == tree, f"seed {seed}"
    assert all(item.ok for item in running.admin.Verify(image_pb2.VerifyRequest()))
