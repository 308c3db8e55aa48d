"""Which control group jails get theirs in, and what is written there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pixsim7_backend.infrastructure.plugins._jail.cgroups import (
    Base,
    JailGroup,
    OwnGroup,
    find_obstacle,
    find_own,
    limits_of,
)
from pixsim7_backend.infrastructure.plugins._jail.process import JailExit
from pixsim7_backend.infrastructure.plugins._jail.spec import JailLimits

V1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = "38 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
PART = "99 31 0:26 /docker/1f0a /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("groups", "mounts", "found"),
    [
        ("0::/system.slice/game.service/server\n", V2, OwnGroup(
            Path("/sys/fs/cgroup/system.slice/game.service/server"), Path("/sys/fs/cgroup"))),
        ("4:memory:/x\n0::/server\n", V1 + HYBRID, OwnGroup(
            Path("/sys/fs/cgroup/unified/server"), Path("/sys/fs/cgroup/unified"))),
        ("0::/\n", V2, OwnGroup(Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup"))),
        ("0::/docker/1f0a/server\n", PART, OwnGroup(Path("/mnt/my groups/server"), Path("/mnt/my groups"))),
        ("0::/docker/2b\n", PART, None),
        ("0::/../elsewhere\n", V2, None),
        ("4:memory:/x\n", V1, None),
        ("0::/\n", V1, None),
    ],
)  # fmt: skip
def test_where_the_host_is(groups: str, mounts: str, found: OwnGroup | None) -> None:
    """Its group as a directory, in what is mounted of the tree; None where it cannot be seen."""
    assert find_own(groups, mounts) == found


OWN = OwnGroup(Path("/g/service/server"), Path("/g"))
BASE = Base(
    path=Path("/g/service"),
    controllers=frozenset({"cpu", "cpuset", "io", "memory", "pids"}),
    is_delegated=True,
    has_processes=False,
)


@pytest.mark.parametrize(
    ("own", "base", "obstacle"),
    [
        (OWN, BASE, None),
        (OWN, replace(BASE, controllers=frozenset({"hugetlb", "pids"})),
         "/g/service lacks the controllers memory, cpu"),
        (OwnGroup(Path("/g"), Path("/g")), replace(BASE, path=Path("/g")),
         "the server must be in a group of its own below /g"),
        (OWN, replace(BASE, is_delegated=False), "/g/service is not delegated to the server"),
        (OWN, replace(BASE, has_processes=True),
         "processes are in /g/service: they must be in groups below it, as the server is"),
    ],
)  # fmt: skip
def test_what_keeps_jails_from_groups(own: OwnGroup, base: Base, obstacle: str | None) -> None:
    """All controllers, a delegation, and no process in the group that has groups."""
    assert find_obstacle(own, base) == obstacle


def test_whether_it_ran_out_of_memory(tmp_path: Path) -> None:
    """The kernel counts what it has ended for that; the end of the jail says so."""
    group = JailGroup(tmp_path)
    assert not group.ran_out_of_memory()
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 0\noom_kill 0\noom_group_kill 0\n")
    assert not group.ran_out_of_memory()
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 1\n")
    assert group.ran_out_of_memory()
    assert str(JailExit(code=-9, ran_out_of_memory=True)) == "was killed, since it used more memory than is allowed"


def test_what_is_written() -> None:
    """The limits of the jail, as far as there are controllers for them."""
    limits = JailLimits(memory=256 << 20, scratch=64 << 20, threads=50)
    everything = {
        "memory.max": str(320 << 20), "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "50",
    }  # fmt: skip
    assert limits_of(limits) == everything
    assert limits_of(limits, ["pids"]) == {"pids.max": "50"}
    assert limits_of(limits, ["hugetlb"]) == {}
