"""What a forked child of the zygote does before it is a jail: it lets go of everything, is confined, and serves."""

from __future__ import annotations

import gc
import json
import os
import random
import socket
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import NamedTuple, NoReturn

from . import control
from .code import SHARED, reach_folder
from .confine.apply import ConfinementPlan, confine
from .confine.privileges import die_with_parent, set_name
from .level import ConfinementLevel, ConfinementReport
from .spec import JailSpec

__all__ = ["Ends", "run_jail"]

_STACK = 512 << 10
_FIRST_FREE = 3


class Ends(NamedTuple):
    """The descriptors that a jail is started with."""

    channel: int
    """Of the socket to the host."""
    errors: int
    """Where its standard error goes."""
    report: int
    """A socket on which the host tells it what it is, and it says how it was confined, or why it was not.

    What it is goes past the zygote, of whose memory every jail has a copy: it may hold secrets of the plugin. The
    socket is closed before the plugin's code runs."""


def run_jail(
    ends: Ends, *, code: tuple[str, ...], parent: int, has_namespaces: bool, floor: ConfinementLevel
) -> NoReturn:
    """Become a jail; never returns, whatever happens."""
    try:
        os.setsid()
        die_with_parent(parent)
        spec = _receive_spec(ends.report)
        set_name(f"jail {spec.plugin}")
        _keep_only(ends)
        try:
            report = confine(
                ConfinementPlan(
                    code=(*code, spec.path), plugin=spec.path, more=SHARED, scratch=spec.scratch, limits=spec.limits,
                    uid=spec.uid, parent=parent, has_namespaces=has_namespaces,
                )
            )  # fmt: skip
            _settle(spec)
        except Exception as error:  # noqa: BLE001 - the launcher tells whoever wanted the jail
            _say(ends.report, {"error": f"{error}"})
        else:
            _serve(spec, ends, report, floor)
    except BaseException:  # noqa: BLE001 - the last stop: its standard error is kept by the host
        traceback.print_exc()
    finally:
        os._exit(1)


def _serve(spec: JailSpec, ends: Ends, report: ConfinementReport, floor: ConfinementLevel) -> None:
    if report.level < floor:
        _say(ends.report, {"error": f"only the level {report.level.name.lower()} was reached: {report}"})
        return
    _say(ends.report, {"report": report.to_json()})
    from .inside.serving import serve

    serve(socket.socket(fileno=ends.channel), spec)


def _receive_spec(descriptor: int) -> JailSpec:
    told = socket.socket(fileno=descriptor)
    received = control.receive(told)
    told.detach()
    if received is None:
        os._exit(1)  # the host is gone
    return JailSpec.from_json(received[0])


def _keep_only(ends: Ends) -> None:
    """Close every descriptor but these; standard input and output lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.dup2(ends.errors, 2)
    first, last = sorted((ends.channel, ends.report))
    os.closerange(_FIRST_FREE, first)
    os.closerange(first + 1, last)
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))


def _settle(spec: JailSpec) -> None:
    """Make Python at home: its own random numbers, directories that it can use, stacks that fit its limits."""
    random.seed()
    os.chdir(spec.scratch)
    os.environ["TMPDIR"] = os.environ["HOME"] = spec.scratch
    tempfile.tempdir = None
    reach_folder(Path(spec.path))
    threading.stack_size(_STACK)
    sys.argv[:] = [f"jail {spec.plugin}"]
    gc.enable()


def _say(descriptor: int, message: object) -> None:
    os.write(descriptor, json.dumps(message).encode())
    os.close(descriptor)
