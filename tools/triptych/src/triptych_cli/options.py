"""Options that several commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import click

from triptych_cli.context import Context, Output

F = TypeVar("F", bound=Callable[..., Any])


def _set_output(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.obj = dataclasses.replace(ctx.obj, output=Output(value))


def output_option(function: F) -> F:
    """`-o json` behind the command, where people write it; wins over the one before."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice([output.value for output in Output]),
        expose_value=False,
        callback=_set_output,
        help="Form of the result.",
    )(function)


pass_context = click.make_pass_decorator(Context, ensure=True)
