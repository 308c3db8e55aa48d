"""Starts jails for the host: keeps a zygote, gives each jail a user and a scratch directory, and takes them back."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from .cgroups import JailGroups
from .keeper import Keeper, LaunchError
from .level import ConfinementLevel, ConfinementReport
from .process import JailProcess
from .scratch import ScratchDirectories
from .spec import JailSpec
from .uids import NoUidError, UidPool

__all__ = ["LaunchError", "Launcher"]

logger = logging.getLogger("pixsim7.plugins.jail")

_LIMIT = 60.0


class Launcher:
    """Any thread may use it; its methods block.

    Args:
        preload: modules that every jail finds imported, beside those of the platform.
        floor: a jail that is confined less does not run.
        uids: where the host is root, the users that jails run as; None: all as the host's.
        groups: makes the control groups that jails are in; None: they are in that of the host.
        scratch: where scratch directories are made; None: where temporary files are.
        limit: seconds that the zygote may take to start, and a jail to be confined.
    """

    def __init__(
        self,
        *,
        preload: Sequence[str] = (),
        floor: ConfinementLevel = ConfinementLevel.CONFINED,
        uids: UidPool | None = None,
        groups: JailGroups | None = None,
        scratch: Path | None = None,
        limit: float = _LIMIT,
    ) -> None:
        self._preload = tuple(preload)
        self._floor = floor
        self._uids = uids if os.geteuid() == 0 else None
        self._groups = groups
        self._scratch = ScratchDirectories(scratch)
        self._limit = limit
        self._lock = threading.Lock()
        self._keeper: Keeper | None = None
        self._report: ConfinementReport | None = None
        _launchers.add(self)

    def start(self) -> ConfinementReport:
        """Make sure that the zygote runs; return what this machine can confine a jail with.

        Raises:
            LaunchError: it cannot be started; the text says why.
        """
        self._get_keeper()
        assert self._report is not None
        return self._report

    def spawn(self, spec: JailSpec) -> JailProcess:
        """Start a jail and return it when it is confined; its plugin is not imported yet.

        Its user and its scratch directory are chosen here, whatever the spec says.

        Raises:
            LaunchError: it cannot be started; the text says why.
        """
        keeper = self._get_keeper()
        try:
            return self._spawn(keeper, spec)
        except LaunchError:
            if keeper.is_alive or self._keeper is None:
                raise
        return self._spawn(self._get_keeper(), spec)  # the zygote died meanwhile, which is not the jail's fault

    def _spawn(self, keeper: Keeper, spec: JailSpec) -> JailProcess:
        try:
            with ExitStack() as undo:
                uid = self._lease(undo)
                scratch = self._scratch.make(spec.plugin, uid)
                undo.callback(self._scratch.remove, scratch)
                group = None if self._groups is None else self._groups.make(spec.plugin, spec.limits)
                if group is not None:
                    undo.callback(group.remove)
                had = undo.pop_all()
        except (NoUidError, OSError) as error:
            raise LaunchError(f"the jail of plugin {spec.plugin!r} cannot be started: {error}") from error

        def give_back() -> None:
            try:
                had.close()
            except OSError:  # the plugin may have had its hand in that: it must not be anybody else's trouble
                logger.exception("What the jail of plugin %s had could not be removed", spec.plugin)

        return keeper.launch(replace(spec, uid=uid, scratch=str(scratch)), give_back, self._limit, group)

    def _lease(self, undo: ExitStack) -> int | None:
        if self._uids is None:
            return None
        lease = self._uids.lease()
        undo.callback(lease.release)
        return lease.uid

    def close(self) -> None:
        """End all jails and the zygote; the launcher can be used again."""
        with self._lock:
            keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()
        self._scratch.close()
        if self._groups is not None:
            self._groups.close()
        atexit.unregister(self.close)

    def _get_keeper(self) -> Keeper:
        with self._lock:
            if self._keeper is None or not self._keeper.is_alive:
                keeper = Keeper(preload=self._preload, floor=self._floor)
                self._report = keeper.start(self._limit)
                self._keeper = keeper
                atexit.register(self.close)
            return self._keeper

    def _forget(self) -> None:
        """Be a new launcher: this process is a copy of the one whose zygote that was."""
        keeper, self._keeper, self._lock = self._keeper, None, threading.Lock()
        if keeper is not None:
            keeper.forget()
            self._scratch.forget()
            if self._groups is not None:
                self._groups.forget()


_launchers: weakref.WeakSet[Launcher] = weakref.WeakSet()


def _forget_all() -> None:
    for launcher in tuple(_launchers):
        launcher._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
