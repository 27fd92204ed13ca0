"""`ls` and `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from triptych_cli import render
from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CliError
from triptych_cli.options import output_option, pass_context

if TYPE_CHECKING:
    from runtime.v1.api_pb2 import Image


@click.command()
@click.argument("reference", required=False)
@click.option("--digests", is_flag=True, help="Show the digest of each name.")
@click.option("-q", "--quiet", is_flag=True, help="Print image IDs only.")
@output_option
@pass_context
def ls(context: Context, reference: str | None, digests: bool, quiet: bool) -> None:
    """List images, all or those that REFERENCE names."""
    from runtime.v1 import api_pb2, api_pb2_grpc

    from triptych_cli.rpc import channel

    request = api_pb2.ListImagesRequest()
    if reference:
        request.filter.image.image = reference
    with channel(context, DaemonName.IMAGE) as opened:
        images = api_pb2_grpc.ImageServiceStub(opened).ListImages(request, timeout=context.timeout).images
    if context.json:
        render.as_json([_document(image) for image in images])
    elif quiet:
        for image in images:
            click.echo(image.id)
    else:
        columns = ("NAME", "ID", "SIZE", *(("DIGEST",) if digests else ()), "PINNED")
        rows = [row for image in images for row in _rows(image, digests)]
        render.table(columns, sorted(rows), right=("SIZE",))


def _rows(image: Image, digests: bool) -> list[tuple[str, ...]]:
    """One row a name; an image without a tag is shown by its digest, or its ID alone."""
    by_digest = {entry.partition("@")[0]: entry.partition("@")[2] for entry in image.repo_digests}
    names = list(image.repo_tags) or list(image.repo_digests) or ["-"]
    rows = []
    for name in names:
        repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
        digest = (render.short(by_digest.get(repository, "-")),) if digests else ()
        pinned = "yes" if image.pinned else "-"
        rows.append((name, render.short(image.id), render.size(image.size), *digest, pinned))
    return rows


def _document(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "tags": list(image.repo_tags),
        "digests": list(image.repo_digests),
        "size": image.size,
        "pinned": image.pinned,
        "user": image.username or (str(image.uid.value) if image.HasField("uid") else ""),
    }


@click.command()
@click.argument("reference")
@pass_context
def inspect(context: Context, reference: str) -> None:
    """Print what is known of an image, with its config, as JSON."""
    import json

    from google.protobuf import json_format
    from runtime.v1 import api_pb2, api_pb2_grpc

    from triptych_cli.rpc import channel

    request = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=reference), verbose=True)
    with channel(context, DaemonName.IMAGE) as opened:
        status = api_pb2_grpc.ImageServiceStub(opened).ImageStatus(request, timeout=context.timeout)
    if not status.HasField("image"):
        raise CliError(f"{reference} is not on this node", hint=f"triptych image pull {reference}")
    document: dict[str, Any] = {"image": json_format.MessageToDict(status.image)}
    for key, value in status.info.items():
        try:
            document[key] = json.loads(value)
        except ValueError:
            document[key] = value
    render.as_json(document)
