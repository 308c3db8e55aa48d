"""When a plugin's tables are migrated while the server runs, and when its new code is refused instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixsim7_backend.db import Database
from pixsim7_backend.db.migrations import current, find_source, upgrade
from pixsim7_backend.db.models import iter_plugin_bases
from pixsim7_backend.infrastructure.plugins import PluginState
from pixsim7_backend.infrastructure.plugins.testing import plugin_host, write_plugin
from pixsim7_backend.plugin_migrations import MigrationsPendingError, PluginMigrations

pytestmark = pytest.mark.anyio

MODELS = """
from sqlalchemy.orm import Mapped, mapped_column
from pixsim7_backend.db.models import plugin_base
Base = plugin_base("quest")
class Quest(Base):
    __tablename__ = "quests"
    id: Mapped[int] = mapped_column(primary_key=True)
VERSION = {version}
@router.get("/version")
def version() -> int: return VERSION
"""

REVISION = """
import sqlalchemy as sa
from alembic import op
revision = {number!r}
down_revision = {before!r}
def upgrade():
    op.create_table("quests_{number}", sa.Column("id", sa.Integer, primary_key=True))
def downgrade():
    op.drop_table("quests_{number}")
"""


def write(directory: Path, version: int) -> Path:
    """Write a plugin whose code of this version needs as many migrations."""
    folder = write_plugin(directory, "quest", MODELS.format(version=version))
    (folder / "migrations").mkdir(exist_ok=True)
    number, before = f"{version:04}", f"{version - 1:04}" if version > 1 else None
    (folder / "migrations" / f"{number}.py").write_text(REVISION.format(number=number, before=before))
    return folder


def stands_at(database: Database, folder: Path) -> str | None:
    source = find_source("quest", folder)
    assert source is not None
    return current(database, source)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'test.sqlite3'}")


async def test_new_code_with_pending_migrations_is_refused_without_consent(tmp_path: Path, database: Database) -> None:
    """The old code serves on; after `pixsim7 db upgrade` the same reload works. Models declare themselves anew."""
    migrations = PluginMigrations(database, is_embedded=True, migrates_live=False)
    folder = write(tmp_path / "plugins", 1)
    try:
        async with plugin_host(tmp_path / "plugins", prepare=migrations) as host:
            migrations.is_live = True
            assert stands_at(database, folder) == "0001"
            write(tmp_path / "plugins", 2)
            with pytest.raises(MigrationsPendingError) as refused:
                await host.manager.reload("quest")
            assert str(refused.value) == (
                "plugin 'quest' needs migrations that have not been run (0002); run `pixsim7 db upgrade`"
                " and `pixsim7 plugins reload quest`, or set RELOAD_MIGRATIONS=true, which"
                " `pixsim7 plugins add` needs while a server runs"
            )
            assert (await host.client.get("/api/v1/quest/version")).json() == 1
            assert stands_at(database, folder) == "0001"
            assert len(iter_plugin_bases("quest")) == 1
            source = find_source("quest", folder)
            assert source is not None
            upgrade(database, [source])
            await host.manager.reload("quest")
            assert (await host.client.get("/api/v1/quest/version")).json() == 2
            await host.manager.settle()
            assert len(iter_plugin_bases("quest")) == 1
    finally:
        await database.aclose()


async def test_with_consent_they_are_run_before_the_new_code(tmp_path: Path, database: Database) -> None:
    """RELOAD_MIGRATIONS=true: the tables are there when on_enable runs."""
    migrations = PluginMigrations(database, is_embedded=False, migrates_live=True)
    folder = write(tmp_path / "plugins", 1)
    try:
        async with plugin_host(tmp_path / "plugins", prepare=migrations) as host:
            assert stands_at(database, folder) is None
            migrations.is_live = True
            write(tmp_path / "plugins", 2)
            await host.manager.reload("quest")
            assert stands_at(database, folder) == "0002"
            assert (await host.client.get("/api/v1/quest/version")).json() == 2
    finally:
        await database.aclose()


async def test_a_plugin_that_comes_to_a_shared_database_waits_for_its_migrations(
    tmp_path: Path, database: Database
) -> None:
    """Added while the server runs it is blocked; to the embedded database it brings its tables itself."""
    (tmp_path / "plugins").mkdir()
    for is_embedded, state in ((False, PluginState.BLOCKED), (True, PluginState.ENABLED)):
        migrations = PluginMigrations(database, is_embedded=is_embedded, migrates_live=False)
        try:
            async with plugin_host(tmp_path / "plugins", prepare=migrations) as host:
                migrations.is_live = True
                folder = write(tmp_path / "plugins", 1)
                if is_embedded:
                    await host.manager.reload("quest")
                else:
                    with pytest.raises(MigrationsPendingError):
                        await host.manager.refresh(folder)
                host.assert_state("quest", state)
        finally:
            await database.aclose()
