"""A game with one open table, one closed table, and a plugin in a jail beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

import pixsim7_backend.db as db_module
from pixsim7_backend.community import tables
from pixsim7_backend.community.database import driver, inside, service
from pixsim7_backend.community.database.limits import DatabaseLimits
from pixsim7_backend.community.database.openness import openness_of
from pixsim7_backend.community.database.roles import AppliedGrants, apply_grants, remove_role
from pixsim7_backend.community.database.service import DatabaseService
from pixsim7_backend.db import Database, default_database, dependencies
from pixsim7_backend.db.default import _Process as DefaultProcess
from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerLimits
from pixsim7_backend.infrastructure.plugins._jail.inside import services
from tests.databases import fresh_database
from tests.integration.community.game import MODELS, Base, Hero, Secret
from tests.integration.community.halves import grants_of
from tests.integration.community.loopback import Loopback, connected, identity

ALL = ("db:read", "db:write", "db:own")


class Jail:
    """A plugin's jail, and the game's database that it must not get at."""

    def __init__(self, game: Database, database: Database, channel: Loopback, app: FastAPI, directory: Path) -> None:
        self.game = game
        self.database = database
        self.channel = channel
        self.app = app
        self.directory = directory

    def run(self, *statements: str, mode: str = "read", parameters: Any = ()) -> list[Any]:
        """Run statements in one transaction, as the plugin's code would; return the rows of the last."""
        connection = driver.connect(mode=mode)
        cursor = connection.cursor()
        try:
            for statement in statements:
                cursor.execute(statement, parameters)
            rows = cursor.fetchall()
            connection.commit()
        finally:
            connection.close()
        return rows

    def refused(self, *statements: str, mode: str = "read", parameters: Any = ()) -> str:
        """Run statements of which the last must fail; return the class and the text of its error."""
        if statements[:-1]:
            self.run(*statements[:-1], mode=mode)
        with pytest.raises(driver.Error) as failure:
            self.run(*statements, mode=mode, parameters=parameters)
        return f"{type(failure.value).__name__}: {failure.value}"

    def bare(self, *statements: str) -> list[Any]:
        """Run statements in one transaction as the host itself, and undo them; return the rows of the last."""
        connection = self.game.engine.raw_connection()
        cursor = connection.cursor()
        try:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.rollback()
            connection.close()

    def apply(self, *granted: str) -> AppliedGrants:
        """Grant again, as the operator does after a change."""
        url, grants = self.game.url.render_as_string(hide_password=False), grants_of(*(granted or ALL))
        return apply_grants(url, "quest-stats", grants, openness_of(MODELS), data_dir=self.directory / "data")

    def wait_until_over(self) -> None:
        """Wait until the host has ended all transactions of the plugin."""
        session: Any = self.channel.broker._sessions["db"]
        deadline = time.monotonic() + 10
        while session._open and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not session._open

    def still_serves(self) -> bool:
        """Tell whether the host writes and reads its own tables, and the plugin reads what it may."""
        with self.game.session() as session:
            session.add(Secret(token="more"))
        return self.run("SELECT name FROM heroes ORDER BY id") == [("Ada",), ("Bob",)]


Enter = Callable[..., Any]


def create_game(url: str) -> None:
    """Make the game's tables."""
    database = Database(url)
    Base.metadata.create_all(database.engine)
    database.close()


@pytest.fixture
def game(database_kind: str, tmp_path: Path) -> Iterator[Database]:
    """The game's database: two heroes, and a secret."""
    with fresh_database(database_kind, tmp_path) as url:
        create_game(url)
        database = Database(url)
        with database.session() as session:
            session.add(Hero(name="Ada", state={"hp": 3}, purse="hidden gold"))
            session.add(Hero(name="Bob", state={"hp": 5}, purse="hidden silver"))
            session.add(Secret(token="s3cret"))
        yield database
        database.close()


@pytest.fixture
def enter(game: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Enter]:
    """Give what puts a plugin with these grants into a jail, until the test ends."""
    with ExitStack() as stack:

        def go(*granted: str, limits: DatabaseLimits | None = None, broker: BrokerLimits | None = None) -> Jail:
            return stack.enter_context(_jail(game, granted or ALL, tmp_path, monkeypatch, limits=limits, broker=broker))

        yield go


@pytest.fixture
def jail(enter: Enter) -> Jail:
    """A jail with all that can be granted."""
    made: Jail = enter()
    return made


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the look at how a statement begins: what is behind it must hold alone."""
    monkeypatch.setattr(service, "check_statement", lambda _statement, **_: None)


@contextmanager
def _jail(
    game: Database,
    granted: tuple[str, ...],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    limits: DatabaseLimits | None,
    broker: BrokerLimits | None,
) -> Iterator[Jail]:
    grants, openness, url = grants_of(*granted), openness_of(MODELS), game.url.render_as_string(hide_password=False)
    served = DatabaseService(lambda: game, data_dir=directory / "data", limits=limits, openness=lambda: openness)
    if not game.is_sqlite:
        apply_grants(url, "quest-stats", grants, openness, data_dir=directory / "data")
    try:
        with connected([served], grants, directory, limits=broker) as channel:
            monkeypatch.setattr(services._Process, "channel", channel)
            monkeypatch.setattr(DefaultProcess, "database", None)
            monkeypatch.setattr(tables._Jail, "tables", None)
            for module in (db_module, dependencies):
                for name in (*inside._WRITING, *inside._READING):
                    monkeypatch.setattr(module, name, getattr(module, name), raising=False)
                monkeypatch.setattr(module, "__getattr__", None, raising=False)
            app = FastAPI()
            app.state.services = {"db": served.describe(identity(directory), grants)}
            inside.install(app)
            yield Jail(game, default_database(), channel, app, directory)
    finally:
        if not game.is_sqlite:
            remove_role(url, "quest-stats", data_dir=directory / "data")
