"""The host's side of ``db.*``: what it bounds, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from pixsim7_backend.community.database import driver
from pixsim7_backend.community.database.limits import DatabaseLimits
from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerLimits
from pixsim7_backend.infrastructure.plugins._jail.inside.services import BrokerCallError
from tests.integration.community.conftest import Enter, Jail
from tests.integration.community.game import Hero

HEROES = "SELECT name FROM heroes ORDER BY id"


def test_transactions_are_few(enter: Enter) -> None:
    """One transaction more than allowed waits, and then is refused; one that ends makes room."""
    jail = enter(limits=DatabaseLimits(transactions=2, statement_time=0.5))
    held = [driver.connect(mode="read") for _ in range(2)]
    for connection in held:
        connection.cursor().execute("SELECT 1")
    assert "all 2 transactions" in jail.refused("SELECT 1")
    held[0].rollback()
    assert jail.run(HEROES) == [("Ada",), ("Bob",)]
    held[1].close()


def test_an_idle_transaction_is_ended(enter: Enter) -> None:
    """A transaction in which nothing is done is rolled back, and whoever goes on with it is told."""
    jail = enter(limits=DatabaseLimits(idle_time=0.2))
    connection = driver.connect(mode="write")
    cursor = connection.cursor()
    cursor.execute("UPDATE heroes SET state = '{}'")
    jail.wait_until_over()
    with pytest.raises(driver.OperationalError, match=r"nothing was done in it for 0\.2 s"):
        cursor.execute("SELECT 1")
    connection.rollback()
    with jail.game.readonly_session() as session:
        assert session.scalars(select(Hero.state)).first() == {"hp": 3}


def test_what_is_open_is_undone_with_the_jail(enter: Enter) -> None:
    """When the jail ends, its transactions are rolled back and its statements stopped."""
    jail = enter()
    driver.connect(mode="write").cursor().execute("UPDATE heroes SET state = '{}'")
    driver.connect(mode="read").cursor().execute("SELECT 1")
    jail.channel.run(jail.channel.broker.close())
    with jail.game.session() as session:
        assert session.scalars(select(Hero.state)).first() == {"hp": 3}
        session.add(Hero(name="Cyd", state={}, purse=""))


def test_many_threads_use_many_transactions(enter: Enter) -> None:
    """Twelve threads with sessions of their own get right answers, more than may be open at once."""
    jail = enter(limits=DatabaseLimits(transactions=3))
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: jail.run(HEROES), range(60)))
    assert answers == [[("Ada",), ("Bob",)]] * 60


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("begin", []),
        ("begin", ["own"]),
        ("begin", [["read"]]),
        ("execute", [1, "SELECT 1"]),
        ("execute", ["1", "SELECT 1", []]),
        ("execute", [True, "SELECT 1", []]),
        ("execute", [99, "SELECT 1", []]),
        ("execute", [1, "SELECT 1", {}]),
        ("execute", [1, "SELECT 1", [{"x": "y"}]]),
        ("execute", [1, "SELECT 1", [{"t": "yesterday"}]]),
        ("execute", [1, "SELECT 1", [{"n": "9" * 5000}]]),
        ("execute", [1, "SELECT 1", [{"t": "2026-01-01", "d": "2026-01-01"}]]),
        ("execute", [1, "SELECT 1", [[[[[[[[[[1]]]]]]]]]]]),
        ("execute", [1, "SELECT \x00 1", []]),
        ("execute", [1, "SELECT " + "1," * 60_000 + "1", []]),
        ("execute", [1, "", []]),
        ("many", [1, "SELECT 1", [[]] * 201]),
        ("many", [1, "SELECT 1", [1]]),
        ("fetch", [1]),
        ("savepoint", [1, "begin", 'x"; COMMIT; --']),
        ("savepoint", [1, "drop", "x"]),
        ("savepoint", [1, "release", "never_begun"]),
        ("commit", [77]),
        ("__init__", []),
        ("close", []),
        ("", []),
    ],
)
def test_calls_that_the_driver_never_makes_are_refused(jail: Jail, method: str, args: list[object]) -> None:
    """A jail that speaks to the broker directly gets an error for nonsense, and the host is none the worse."""
    assert jail.channel.call("db.begin", "read") == 1
    with pytest.raises(BrokerCallError) as refusal:
        jail.channel.call(f"db.{method}", *args)
    assert refusal.value.kind != "HostError"
    assert str(jail.directory) not in str(refusal.value)
    jail.channel.call("db.rollback", 1)
    assert jail.still_serves()


def test_the_minutes_share_is_bounded(enter: Enter) -> None:
    """A plugin that has used its rows of this minute is refused until the next."""
    jail = enter(broker=BrokerLimits(per_minute={"db.rows": 4}))
    assert len(jail.run(HEROES)) == 2
    assert len(jail.run(HEROES)) == 2
    assert "has used its 4 db.rows of this minute" in jail.refused(HEROES)
    assert jail.channel.broker.meter.total["db.statements"] == 2
    assert jail.channel.broker.meter.total["db.bytes"] > 0


def test_without_a_grant_nothing_is_answered(enter: Enter) -> None:
    """A plugin without any permission for the database is told which there are."""
    jail = enter("events:emit")
    assert "needs the permission 'db:read' or 'db:write' or 'db:own'" in jail.refused("SELECT 1")


def test_reading_does_not_include_writing(enter: Enter) -> None:
    """With ``db:read`` alone no transaction for writing is opened; a narrowed permission opens its table only."""
    jail = enter("db:read:heroes")
    assert "no permission for transactions that write" in jail.refused("SELECT 1", mode="write")
    assert jail.run(HEROES) == [("Ada",), ("Bob",)]
