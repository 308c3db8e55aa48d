"""What is taken back from a plugin is gone at once: from what is open and from what runs, whatever its role may."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pixsim7_backend.community.database import driver
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from tests.integration.community.conftest import Enter, Jail
from tests.integration.community.halves import grants_of

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
HEROES = "SELECT count(*) FROM heroes"


def regrant(jail: Jail, grants: Grants) -> None:
    """Decide anew."""
    jail.channel.run(jail.channel.broker.regrant(grants))


def test_what_is_open_and_what_runs_is_broken_off(jail: Jail) -> None:
    """A statement under way ends with an error, an open transaction is undone, and the next one is refused."""
    connection = driver.connect(mode="write")
    connection.cursor().execute("UPDATE heroes SET state = '{}'")
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(jail.refused, ENDLESS)
        while jail.channel.broker.meter.total["db.statements"] < 2:
            time.sleep(0.005)
        regrant(jail, grants_of("events:emit"))
        assert "what was granted has changed meanwhile" in running.result(10)
    assert "needs the permission" in jail.refused(HEROES)
    with pytest.raises(driver.Error):
        connection.commit()
    assert jail.bare("SELECT count(*) FROM heroes WHERE state <> '{}'") == [(2,)]


def test_what_is_still_granted_is_served(jail: Jail) -> None:
    """The other permissions go on, as soon as the database has followed; giving more breaks nothing off."""
    regrant(jail, grants_of("db:read"))
    if not jail.game.is_sqlite:
        assert "this plugin's role in the database still has UPDATE on heroes" in jail.refused(HEROES)
        jail.apply("db:read")
    assert jail.run(HEROES) == [(2,)]
    assert "no permission for transactions that write" in jail.refused(HEROES, mode="write")
    connection = driver.connect(mode="read")
    cursor = connection.cursor()
    cursor.execute(HEROES)
    regrant(jail, grants_of("db:read", "db:own"))
    assert cursor.execute(HEROES).fetchall() == [(2,)]
    connection.rollback()


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_a_role_that_may_more_than_was_granted_is_not_used(enter: Enter) -> None:
    """Whatever was granted to it by hand or is left of an older decision: a table, a column, its own schema."""
    jail = enter()
    jail.run("CREATE TABLE notes (x int)", mode="write")
    regrant(jail, grants_of("db:read", "db:own"))
    assert "still has UPDATE on heroes" in jail.refused("SELECT 1")
    jail.apply("db:read", "db:own")
    assert jail.run("SELECT count(*) FROM notes") == [(0,)]
    regrant(jail, grants_of("db:read"))
    assert "still has OWNER on plugin_quest_stats" in jail.refused("SELECT 1")
    role = jail.apply("db:read").role
    assert jail.run("SELECT 1") == [(1,)]
    with jail.game.engine.begin() as connection:
        connection.exec_driver_sql(f"GRANT SELECT ON secrets TO {role}")
    regrant(jail, grants_of("db:read:heroes"))
    assert "still has SELECT on secrets" in jail.refused("SELECT 1")
