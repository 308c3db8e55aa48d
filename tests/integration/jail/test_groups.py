"""Jails in control groups: what a kernel does whose cgroup v2 may lack the controllers that bound anything."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixsim7_backend.infrastructure.plugins._jail.cgroups import JailGroup, JailGroups, find_own
from pixsim7_backend.infrastructure.plugins._jail.handshake import greet
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher, LaunchError
from pixsim7_backend.infrastructure.plugins._jail.process import JailProcess
from pixsim7_backend.infrastructure.plugins._jail.spec import JailLimits
from pixsim7_backend.infrastructure.plugins._jail.uids import UidPool
from pixsim7_backend.infrastructure.plugins.testing import write_plugin

from .test_launcher import spec_of

OWN = find_own(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or OWN is None or not os.access(OWN.top, os.W_OK),
    reason="only root may make control groups, where cgroup v2 is mounted",
)


@pytest.fixture
def base() -> Iterator[Path]:
    """A group that is the test's; nothing is in it afterwards."""
    assert OWN is not None
    made = OWN.top / f"test-{uuid.uuid4().hex[:8]}"
    made.mkdir()
    yield made
    for path in sorted(groups_in(made), reverse=True):  # of a test that failed
        JailGroup(path).remove()
    made.rmdir()


@pytest.fixture
def folder(open_dir: Path) -> Path:
    """The folder of a plugin."""
    return write_plugin(open_dir, "quest")


def group_of(process: JailProcess) -> Path:
    """Return the group that the kernel says a process is in."""
    assert OWN is not None
    found = find_own(Path(f"/proc/{process.pid}/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    assert found is not None
    return found.path


def groups_in(base: Path) -> list[Path]:
    """Return the groups below one."""
    return [path for path in base.rglob("*") if path.is_dir()]


def test_each_jail_is_in_a_group_of_its_own(base: Path, folder: Path) -> None:
    """The report says so; it ends by the group, which is gone with it, and the host leaves nothing."""
    launcher = Launcher(uids=UidPool(), groups=JailGroups(base, controllers=()))
    jails = [launcher.spawn(spec_of(folder)) for _ in range(2)]
    assert {group_of(each).parent.parent for each in jails} == {base}
    assert group_of(jails[0]) != group_of(jails[1])
    assert [each.report.cgroup for each in jails if each.report is not None] == [True, True]
    for each in jails:
        group = each.group
        assert group is not None
        assert group.path == group_of(each)
        group.kill()  # nothing else ends it
        found = each.wait(20)
        assert found is not None
        assert (found.code, found.ran_out_of_memory) == (-signal.SIGKILL, False)
        assert not group.path.exists()
        each.close()
    launcher.close()
    assert groups_in(base) == []


def test_a_jail_has_no_say_in_groups(base: Path, open_dir: Path) -> None:
    """Not even one that runs as the user whom they belong to."""
    launcher = Launcher(groups=JailGroups(base, controllers=()))
    process = launcher.spawn(spec_of(write_plugin(open_dir, "quest", WRITING.format(base=str(base)))))
    routes = greet(process.connection, limit=60, on_log=lambda *_: None).answer["routes"]
    assert [path for _, path, _ in routes] == ["/api/v1/quest/denied-4-times"]
    process.close()
    launcher.close()


WRITING = """
denied = 0
for name in ("cgroup.procs", "cgroup.kill", "cgroup.subtree_control", "../cgroup.procs"):
    try:
        open(f"{base}/{{name}}", "r+")
    except OSError:
        denied += 1

@router.get(f"/denied-{{denied}}-times")
def given() -> None: ...
"""


def test_a_refused_group_is_a_refused_jail(base: Path, folder: Path) -> None:
    """What was promised is not left out in silence; nothing is left of the attempt."""
    launcher = Launcher(uids=UidPool(), groups=JailGroups(base, controllers=["no-such"]))
    with pytest.raises(LaunchError, match=r"the jail of plugin 'quest' cannot be started: .*Invalid argument"):
        launcher.spawn(spec_of(folder))
    launcher.close()
    assert groups_in(base) == []


class Vanishing(JailGroups):
    """Makes groups that somebody else removes at once."""

    def make(self, name: str, limits: JailLimits) -> JailGroup:
        group = super().make(name, limits)
        group.remove()
        return group


def test_a_jail_that_gets_into_no_group_does_not_run(base: Path, folder: Path) -> None:
    """It is ended before it was told what it is."""
    launcher = Launcher(uids=UidPool(), groups=Vanishing(base, controllers=()))
    with pytest.raises(LaunchError, match=r"it cannot be moved into its control group: .*No such file"):
        launcher.spawn(spec_of(folder))
    launcher.close()
    assert groups_in(base) == []


HOST = """
import subprocess, sys, time
from pathlib import Path
from pixsim7_backend.infrastructure.plugins._jail.cgroups import JailGroups
from pixsim7_backend.infrastructure.plugins._jail.spec import JailLimits

group = JailGroups(Path(sys.argv[1]), controllers=()).make("quest", JailLimits())
child = subprocess.Popen(["sleep", "120"], stdout=subprocess.DEVNULL)
group.admit(child.pid)
print(child.pid, flush=True)
time.sleep(120)
"""


def test_what_a_killed_host_left_behind_is_removed_by_the_next(base: Path) -> None:
    """With what is still in it; the groups of a host that runs are left alone."""
    running = JailGroups(base, controllers=())
    kept = running.make("quest", JailLimits())
    with subprocess.Popen([sys.executable, "-c", HOST, str(base)], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        left = os.pidfd_open(int(host.stdout.readline()))
        host.kill()
    assert len(groups_in(base)) == 4
    following = JailGroups(base, controllers=())
    following.make("quest", JailLimits())
    assert kept.path.exists()
    assert len(groups_in(base)) == 4
    poll = select.poll()
    poll.register(left, select.POLLIN)
    assert poll.poll(20_000), "it still runs"
    os.close(left)
    following.close()
    running.close()
    assert groups_in(base) == []
