"""1 to 19: files of the host, of other plugins, and too many of its own."""

from __future__ import annotations

import pytest

from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementLevel
from tests.escape.arena import Arena
from tests.escape.attempts import files

pytestmark = pytest.mark.anyio


async def test_001_open_etc_passwd(arena: Arena) -> None:
    """The users of the machine cannot be read."""
    await arena.denied(files.open_etc_passwd)


async def test_002_read_configuration(arena: Arena) -> None:
    """The host's .env, settings and keys cannot be read, nor their directory listed."""
    await arena.denied(files.read_configuration)


async def test_003_read_environment_of_others(arena: Arena) -> None:
    """No other process shows its environment, neither the server nor the parent."""
    await arena.denied(files.read_environment_of_others)


async def test_004_read_memory_of_others(arena: Arena) -> None:
    """No other process can be read through its file of memory."""
    await arena.denied(files.read_memory_of_others)


async def test_005_find_secret_in_own_environment(arena: Arena) -> None:
    """The plugin's own environment holds nothing of the host, though children of the host inherit it."""
    await arena.denied(files.find_secret_in_own_environment)


async def test_006_read_open_descriptors(arena: Arena) -> None:
    """A file that the host left open is not open in the jail."""
    await arena.denied(files.read_open_descriptors)


async def test_007_write_outside(arena: Arena) -> None:
    """Nothing can be made outside the scratch directory."""
    await arena.denied(files.write_outside)


async def test_008_follow_symbolic_link(arena: Arena) -> None:
    """No symbolic link leads out of the scratch directory."""
    await arena.denied(files.follow_symbolic_link)


async def test_009_make_hard_link(arena: Arena) -> None:
    """No file of the host can be linked in."""
    await arena.denied(files.make_hard_link)


async def test_010_rename_across(arena: Arena) -> None:
    """Files cannot be renamed out of the scratch directory nor into it."""
    await arena.denied(files.rename_across)


async def test_011_change_attributes(arena: Arena) -> None:
    """Modes, owners, times and attributes of the host's files and of its own code stay."""
    await arena.denied(files.change_attributes)


async def test_012_find_existence_and_size(arena: Arena) -> None:
    """In a file tree of its own it cannot find out which files exist; Landlock alone does not hide that."""
    if arena.report.level >= ConfinementLevel.NAMESPACED:
        await arena.denied(files.find_existence_and_size)
        return
    outcome = await arena.confined(files.find_existence_and_size)
    assert outcome.is_good
    arena.note("open", "at this level, existence and size can be found out")


async def test_013_open_by_handle(arena: Arena) -> None:
    """No file can be opened by its number, past all directories."""
    await arena.denied(files.open_by_handle)


async def test_014_read_other_plugin(arena: Arena) -> None:
    """Another plugin's folder is closed."""
    await arena.denied(files.read_other_plugin)


async def test_015_rewrite_own_code(arena: Arena) -> None:
    """A plugin cannot change what will be loaded next time."""
    await arena.denied(files.rewrite_own_code)


async def test_016_plant_start_up_code(arena: Arena) -> None:
    """Nowhere that a Python of the host looks at its start can a file be made."""
    await arena.denied(files.plant_start_up_code)


async def test_017_fill_disk(arena: Arena) -> None:
    """A scratch directory that is too full costs the plugin its jail, and is emptied."""
    await arena.contained(files.fill_disk, status=502, size=24)


async def test_018_write_to_shared_memory(arena: Arena) -> None:
    """The machine's shared memory is closed."""
    await arena.denied(files.write_to_shared_memory)


@pytest.mark.thorough
async def test_019_use_up_inodes(arena: Arena) -> None:
    """So does a scratch directory with too many files, however small."""
    await arena.contained(files.use_up_inodes, status=502, size=20_000)
