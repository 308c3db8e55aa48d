"""``pixsim7 demo``: a small world, filled and played through."""

from __future__ import annotations

from typing import Annotated

import typer

from pixsim7_backend.cli.output import CommandError, JsonFlag
from pixsim7_backend.cli.passwords import admin_password


def demo(
    server: Annotated[
        str | None, typer.Option(help="Address of a running server; without it a private one is started.")
    ] = None,
    admin: Annotated[str, typer.Option(help="E-mail address or username of an admin of that server.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Fill a small playable world and play it through over HTTP, showing every event.

    On a running server places, people and the scene stay; a second run adds nothing. The admin's
    password is asked for, or read from the environment variable PIXSIM7_ADMIN_PASSWORD.
    """
    from pixsim7_backend.demo import run

    if server is None:
        run(as_json=as_json)
        return
    if not admin:
        raise CommandError("only admins may add places and people; name one with --admin", exit_status=2)
    run(server, login=admin, password=admin_password(), as_json=as_json)
