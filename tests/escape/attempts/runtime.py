"""94 to 100: Python itself, and what it leaves behind."""

from __future__ import annotations

import faulthandler
import gc
import io
import json
import logging
import os
import resource
import subprocess
import sys
import traceback
from typing import Any

from .resources import say_raw
from .world import Foiled, World


class _Evil:
    """Unpickled, it makes a directory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def pickle_of(world: World) -> bytes:
    import pickle

    return pickle.dumps(_Evil(str(world.outside("unpickled"))))


def unpickle(world: World) -> str:
    import pickle

    pickle.loads(pickle_of(world))
    world.outside("unpickled").rmdir()
    return "unpickled"


def send_pickle(world: World) -> Any:
    """Send a pickle where a frame is expected."""
    packed = pickle_of(world)
    return say_raw(len(packed).to_bytes(4, "big") + packed)


def send_extension(world: World) -> Any:
    """Send a pickle as MessagePack's type for applications to extend: [ANSWER, 1, true, ext]."""
    packed = pickle_of(world)
    frame = b"\x94\x0a\x01\xc3\xc7" + bytes([len(packed), 1]) + packed
    return say_raw(len(frame).to_bytes(4, "big") + frame)


def patch_everything(world: World) -> str:
    """Replace what the platform and everybody uses, in this process."""
    from pixsim7_backend.infrastructure.plugins import types

    def evil(*_: object, **__: object) -> Any:
        raise RuntimeError("patched")

    for name in ("fastapi.routing", "json.decoder", "asyncio.streams"):
        sys.modules[name] = types
    types.PluginManifest.model_validate = evil  # type: ignore[method-assign]
    json.loads = evil
    logging.Logger.error = evil  # type: ignore[method-assign]
    return f"patched in {os.getpid()}"


def find_in_memory(world: World) -> str:
    """Walk over all objects for what the host holds."""
    for each in gc.get_objects():
        values = each.values() if isinstance(each, dict) else each if isinstance(each, (list, tuple)) else ()
        for value in values:
            if isinstance(value, str) and world.token in value and len(value) > len(world.token) + 20:
                return value
    raise Foiled("no object of the host")


def dump_core(world: World) -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        raise Foiled("no core is dumped")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    return f"{soft} -> {hard}"


def dump_traceback_outside(world: World) -> int:
    with world.outside(world.token).open("w") as file:
        faulthandler.dump_traceback(file)
    return world.outside(world.token).stat().st_size


def start_with_environment(world: World) -> str:
    """Let what is started next load code of ours."""
    world.inside("evil.py").write_text("print('loaded')")
    os.environ.update(PYTHONPATH=world.scratch, PYTHONSTARTUP=str(world.inside("evil.py")), LD_PRELOAD="evil.so")
    started = subprocess.run([sys.executable, "-c", "import evil"], capture_output=True, text=True, check=True)
    return started.stdout


def show_exceptions(world: World) -> str:
    """Read what exceptions and tracebacks tell of the host."""
    told = io.StringIO()
    for action in (lambda: open(world.outside("nothing") / "x"), lambda: json.loads("{")):
        try:
            action()
        except (OSError, ValueError):
            traceback.print_exc(file=told)
    shown = told.getvalue() + repr(sys.exc_info()) + repr(sys.argv) + repr(sys.orig_argv)
    host = os.environ.get("SECRET_KEY", "")
    if host and host in repr(os.environ):
        return host
    if "pytest" in shown or "uvicorn" in shown:
        return shown
    raise Foiled("nothing of the host is told")


def forge_log_lines(world: World) -> str:
    logging.getLogger("innocent\nname").warning("x\n2026-01-01 ERROR audit: %s granted\r\x1b[2J\u202e", world.token)
    print(f"\x1b[31m{world.token}\nforged", file=sys.stderr, flush=True)
    return "written"
