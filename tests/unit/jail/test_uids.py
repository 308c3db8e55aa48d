"""Users for jails: one each, across hosts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pixsim7_backend.infrastructure.plugins._jail.uids import NoUidError, UidPool


def test_no_two_hosts_give_the_same_user(tmp_path: Path) -> None:
    """What one pool has leased, another one on the same directory does not give."""
    here, there = (UidPool(first=61900, count=2, directory=tmp_path / "uids") for _ in range(2))
    first, second = here.lease(), there.lease()
    assert {first.uid, second.uid} == {61900, 61901}
    with pytest.raises(NoUidError, match="all users from 61900 to 61901 have a plugin already"):
        here.lease()
    first.release()
    first.release()
    again = there.lease()
    assert again.uid == 61900
    again.release()
    second.release()


def test_users_of_others_are_left_alone(tmp_path: Path) -> None:
    """A user whom the system knows is never given to a jail."""
    pool = UidPool(first=os.getuid(), count=1, directory=tmp_path / "uids")
    with pytest.raises(NoUidError):
        pool.lease()


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    """Locks in a directory that somebody else could write to prove nothing."""
    directory = tmp_path / "uids"
    directory.mkdir()
    directory.chmod(0o755)
    with pytest.raises(NoUidError, match=r"must be a directory that only the host's user can enter \(mode 700\)"):
        UidPool(directory=directory).lease()
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(NoUidError):
        UidPool(directory=link).lease()
