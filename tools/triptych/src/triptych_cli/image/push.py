"""`push`."""

from __future__ import annotations

import click

from triptych_cli import render
from triptych_cli.context import Context, DaemonName
from triptych_cli.image.credentials import auth, credential_options
from triptych_cli.options import output_option, pass_context


@click.command()
@click.argument("image")
@click.argument("destination", required=False)
@credential_options
@output_option
@pass_context
def push(
    context: Context, image: str, destination: str | None, user: str | None, password_stdin: bool
) -> None:
    """Upload IMAGE under its own name, or as DESTINATION. Prints the digest.

    Layers whose compressed form was discarded after the pull are compressed anew; the digest may differ
    then.
    """
    from triptych.image.v1 import image_pb2, image_pb2_grpc

    from triptych_cli.rpc import channel

    request = image_pb2.PushRequest(image=image, destination=destination or "")
    credentials = auth(user, password_stdin)
    if credentials is not None:
        request.auth.CopyFrom(credentials)
    with channel(context, DaemonName.IMAGE) as opened:
        answer = image_pb2_grpc.ImageAdminServiceStub(opened).Push(request)
    if context.json:
        render.as_json({"image": image, "destination": destination or image, "digest": answer.digest})
    else:
        click.echo(answer.digest)
