"""`tag`, `rm` and `prune`."""

from __future__ import annotations

import click

from triptych_cli import render
from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CliError
from triptych_cli.options import output_option, pass_context


@click.command()
@click.argument("image")
@click.argument("name")
@pass_context
def tag(context: Context, image: str, name: str) -> None:
    """Give IMAGE one more NAME; it moves there from another image that has it."""
    from triptych.image.v1 import image_pb2, image_pb2_grpc

    from triptych_cli.rpc import channel

    with channel(context, DaemonName.IMAGE) as opened:
        request = image_pb2.TagRequest(image=image, reference=name)
        image_pb2_grpc.ImageAdminServiceStub(opened).Tag(request, timeout=context.timeout)


@click.command()
@click.argument("images", nargs=-1, required=True)
@output_option
@pass_context
def rm(context: Context, images: tuple[str, ...]) -> None:
    """Remove IMAGES with all their names, as crictl does.

    Layers that containers use stay until those are gone.
    """
    from runtime.v1 import api_pb2, api_pb2_grpc

    from triptych_cli.rpc import channel

    missing: list[str] = []
    removed: list[dict[str, object]] = []
    with channel(context, DaemonName.IMAGE) as opened:
        stub = api_pb2_grpc.ImageServiceStub(opened)
        for name in images:
            spec = api_pb2.ImageSpec(image=name)
            status = stub.ImageStatus(api_pb2.ImageStatusRequest(image=spec), timeout=context.timeout)
            if not status.HasField("image"):
                missing.append(name)
                continue
            stub.RemoveImage(api_pb2.RemoveImageRequest(image=spec))
            found = status.image
            removed.append({"image": name, "id": found.id, "names": list(found.repo_tags)})
            if not context.json:
                others = [other for other in found.repo_tags if other != name]
                click.echo(f"removed {name}" + (f", also named {', '.join(others)}" if others else ""))
    if context.json:
        render.as_json(removed)
    if missing:
        raise CliError(f"not on this node: {', '.join(missing)}", hint="triptych image ls")


@click.command()
@click.option(
    "-a", "--images", is_flag=True, help="Also every image that no container uses and no one pinned."
)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would go.")
@output_option
@pass_context
def prune(context: Context, images: bool, dry_run: bool) -> None:
    """Remove leftovers of broken pulls and layers that nothing refers to; with -a unused images too."""
    from triptych.image.v1 import image_pb2, image_pb2_grpc

    from triptych_cli.rpc import channel

    with channel(context, DaemonName.IMAGE) as opened:
        request = image_pb2.PruneRequest(images=images, dry_run=dry_run)
        answer = image_pb2_grpc.ImageAdminServiceStub(opened).Prune(request)
    if context.json:
        removed = {"images": list(answer.removed_images), "freed_bytes": answer.freed_bytes}
        render.as_json({**removed, "dry_run": dry_run})
        return
    for name in answer.removed_images:
        click.echo(f"{'would remove' if dry_run else 'removed'} {name}")
    click.echo(f"{render.size(answer.freed_bytes)} {'would be ' if dry_run else ''}freed")
