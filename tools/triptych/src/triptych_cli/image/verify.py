"""`verify`."""

from __future__ import annotations

import click

from triptych_cli import render
from triptych_cli.context import Context, DaemonName
from triptych_cli.options import output_option, pass_context


@click.command()
@click.argument("images", nargs=-1)
@click.option("-q", "--quiet", is_flag=True, help="Say what is wrong only.")
@output_option
@pass_context
def verify(context: Context, images: tuple[str, ...], quiet: bool) -> int:
    """Re-read and re-hash IMAGES, or all. Ends with status 1 when anything is damaged or missing."""
    from triptych.image.v1 import image_pb2, image_pb2_grpc

    from triptych_cli.rpc import channel

    checked, wrong = 0, []
    with channel(context, DaemonName.IMAGE) as opened:
        request = image_pb2.VerifyRequest(images=images)
        for result in image_pb2_grpc.ImageAdminServiceStub(opened).Verify(request):
            checked += 1
            if not result.ok:
                found = {"image": result.image_id, "object": result.object, "problem": result.problem}
                wrong.append(found)
            if not context.json and not (quiet and result.ok):
                word = (result.problem or "whole") if result.ok else f"DAMAGED: {result.problem}"
                click.echo(f"{render.short(result.image_id)} {result.object} {word}")
    if context.json:
        render.as_json({"checked": checked, "damaged": wrong})
    else:
        click.echo(f"{checked} checked, {len(wrong)} damaged")
        if wrong:
            click.echo("remedy: triptych image rm IMAGE; triptych image pull IMAGE", err=True)
    return 1 if wrong else 0
