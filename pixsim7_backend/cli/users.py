"""``pixsim7 users``: accounts, from the machine that runs the server."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, say
from pixsim7_backend.cli.passwords import VARIABLE, admin_password
from pixsim7_backend.settings import load_settings

app = typer.Typer(name="users", help="Manage accounts.", no_args_is_help=True)


@app.callback()
def users() -> None:
    """Keep ``create-admin`` a sub-command although it is the only one."""


@app.command("create-admin")
def create_admin_account(
    email: Annotated[str, typer.Argument(help="E-mail address of the new admin.")],
    username: Annotated[str, typer.Argument(help="Login name of the new admin.")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make an account with the role admin.

    The password is asked for, or read from standard input (--password-stdin), or from the
    environment variable PIXSIM7_ADMIN_PASSWORD; never from the command line, which others can see.
    """
    from pixsim7_backend.cli.db import ready_database
    from pixsim7_backend.plugins.auth import DuplicateAccountError, InvalidAccountError, create_admin

    password = _password(is_piped=password_stdin)
    with ready_database(load_settings()) as database, database.session() as session:
        try:
            user = create_admin(session, email=email, username=username, password=password)
        except InvalidAccountError as error:
            raise CommandError(str(error), exit_status=2) from None
        except DuplicateAccountError as error:
            raise CommandError(f"the {error.field} is taken by another account; choose another one") from None
        session.commit()
    if as_json:
        print_json({"id": user.id, "email": user.email, "username": user.username, "role": str(user.role)})
    else:
        say(f"made admin {user.username} <{user.email}>, id {user.id}")


def _password(*, is_piped: bool) -> str:
    if is_piped:
        return sys.stdin.readline().rstrip("\r\n")
    return admin_password(is_new=True, other_ways=f"use --password-stdin, or set {VARIABLE}")
