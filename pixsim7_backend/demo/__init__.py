"""The playable demo: fills a small world, logs in, and plays it through over HTTP.

Without a server of its own to talk to it starts one, private and gone afterwards, which also loads the
two plugins in ``demo/plugins``: one shows every event over HTTP, one loads the dice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from pixsim7_backend.cli.output import print_json

from .client import DemoError, EventFeed, GameClient
from .play import play
from .report import count_events, show, to_json
from .server import OWN_PLUGINS, Server, private_server

__all__ = ["DemoError", "run"]


def run(base_url: str | None = None, *, login: str = "", password: str = "", as_json: bool = False) -> int:
    """Play the demo and print it; return 0.

    With ``base_url`` it talks to the server there, as the admin with this e-mail address (or username)
    and password; the places, people and the scene that it adds stay, and a second run adds nothing.
    ``as_json`` prints one JSON document at the end instead of the steps as they happen.

    Raises:
        DemoError: it could not be played to the end.
    """
    console = Console(highlight=False, markup=False, quiet=as_json)
    with _server(base_url, login, password, console) as server, _logged_in(server) as client:
        console.print(f"Logged in to {server.base_url} as {server.login}.")
        feed = EventFeed(client)
        steps = show(play(client, feed), console)
    if as_json:
        print_json(to_json(steps))
    console.print()
    console.print(_summary(count_events(steps), feed))
    return 0


@contextmanager
def _server(base_url: str | None, login: str, password: str, console: Console) -> Iterator[Server]:
    if base_url is not None:
        yield Server(base_url, login, password)
        return
    console.print("Starting a private server ...")
    with private_server() as server:
        yield server


@contextmanager
def _logged_in(server: Server) -> Iterator[GameClient]:
    with GameClient(server.base_url) as client:
        role = client.log_in(server.login, server.password)
        try:
            if role != "admin":
                raise DemoError(
                    f"{server.login} is no admin, and only admins may add places and people;"
                    " make one with `pixsim7 users create-admin`"
                )
            yield client
        finally:
            client.log_out()


def _summary(fired: dict[str, int], feed: EventFeed) -> str:
    if not feed.is_available:
        return f"This server shows no events; start it with EXTRA_PLUGINS_DIRS={OWN_PLUGINS} to see them."
    counted = ", ".join(f"{name} ({times})" if times > 1 else name for name, times in fired.items())
    return f"Events that fired: {counted}."
