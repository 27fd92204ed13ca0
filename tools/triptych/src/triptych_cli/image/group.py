"""The subcommands."""

from __future__ import annotations

import click

from triptych_cli.lazy import Lazy, LazyGroup

_COMMANDS = {
    "ls": Lazy("triptych_cli.image.listing:ls", "List images."),
    "inspect": Lazy("triptych_cli.image.listing:inspect", "Everything that is known of an image, as JSON."),
    "pull": Lazy("triptych_cli.image.pull:pull", "Pull an image, with the progress of each layer."),
    "pulls": Lazy("triptych_cli.image.pull:pulls", "Show the pulls that run, live."),
    "push": Lazy("triptych_cli.image.push:push", "Upload an image to a registry."),
    "load": Lazy("triptych_cli.image.archive:load", "Take images from an OCI layout or a docker archive."),
    "save": Lazy("triptych_cli.image.archive:save", "Write images into an archive."),
    "tag": Lazy("triptych_cli.image.change:tag", "Give an image one more name."),
    "rm": Lazy("triptych_cli.image.change:rm", "Remove images."),
    "prune": Lazy("triptych_cli.image.change:prune", "Remove what nothing uses."),
    "verify": Lazy("triptych_cli.image.verify:verify", "Re-read and re-hash what is stored."),
}


@click.group(cls=LazyGroup, table=_COMMANDS)
def image() -> None:
    """Images on this node, through triptych-image."""
