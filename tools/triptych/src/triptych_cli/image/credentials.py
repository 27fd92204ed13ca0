"""Registry credentials from the command line, the environment or standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from triptych_cli.errors import WrongInput

if TYPE_CHECKING:
    from runtime.v1.api_pb2 import AuthConfig

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE = "TRIPTYCH_REGISTRY_PASSWORD"


def credential_options(function: F) -> F:
    """`--user` and `--password-stdin`; a password on the command line would be seen by everybody."""
    function = click.option("--user", help="User name at the registry.")(function)
    return click.option(
        "--password-stdin",
        is_flag=True,
        help=f"Read the password from standard input; else it comes from {VARIABLE}.",
    )(function)


def auth(user: str | None, password_stdin: bool) -> AuthConfig | None:
    """What goes into the request; None leaves it to the daemon's own credentials.

    :raises WrongInput: a password without a user, or a user without a password.
    """
    from runtime.v1 import api_pb2

    password = sys.stdin.readline().rstrip("\n") if password_stdin else os.environ.get(VARIABLE, "")
    if user is None:
        if password_stdin:
            raise WrongInput("--password-stdin needs --user")
        return None
    if not password:
        raise WrongInput("there is no password", hint=f"--password-stdin, or set {VARIABLE}")
    return api_pb2.AuthConfig(username=user, password=password)
