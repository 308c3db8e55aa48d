"""52 to 63: more than its share of what the machine and the channel have."""

from __future__ import annotations

import logging
import mmap
import os
import re
import threading
import time
from typing import Any

from .world import World, each


def take_memory(world: World) -> int:
    def take() -> int:
        taken = [bytearray(32 << 20) for _ in range(16)]
        return sum(map(len, taken))

    def take_or_fail() -> int:
        try:
            return take()
        except MemoryError as error:
            raise OSError(f"{error!r}") from error

    def map_shared() -> int:
        with mmap.mmap(-1, 2 << 30) as mapped:
            return len(mapped)

    return int(each(take_or_fail, map_shared))


def spin(world: World) -> int:
    rounds, end = 0, time.monotonic() + world.size
    while time.monotonic() < end:
        rounds += 1
    return rounds


def backtrack(world: World) -> bool:
    return re.match(r"(a+)+$", "a" * world.size + "b") is None


def open_many_files(world: World) -> int:
    opened: list[int] = []
    try:
        while len(opened) < 200:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return len(opened)


def flood_log(world: World) -> int:
    logger = logging.getLogger("flood")
    for number in range(world.size):
        logger.warning("line %d", number)
    return world.size


def flood_frames(world: World) -> str:
    """Send frames to nobody for as long as the process lives."""
    from pixsim7_backend.infrastructure.plugins._jail.frames import Kind, encode
    from pixsim7_backend.infrastructure.plugins._jail.inside.services import _Process

    channel = _Process.channel
    assert channel is not None
    block = encode(Kind.SEND, 99_999, {}) * 10_000

    def send() -> None:
        while True:
            with channel._sending:
                channel._connection.sendall(block)

    threading.Thread(target=send, daemon=True).start()
    return "flooding"


def say_raw(content: bytes) -> Any:
    """Send bytes to the host past all that frames them; only in a jail there is somebody to send them to."""
    from pixsim7_backend.infrastructure.plugins._jail.inside.services import _Process

    channel = _Process.channel
    assert channel is not None
    with channel._sending:
        channel._connection.sendall(content)
    time.sleep(60)


def announce_gigabytes(world: World) -> Any:
    return say_raw(b"\xff\xff\xff\xff" + bytes(1000))


def nest_deeply(world: World) -> Any:
    bomb = b"\x94\x0a\x01\xc3" + b"\x91" * 500_000 + b"\xc0"
    return say_raw(len(bomb).to_bytes(4, "big") + bomb)


def nest_just_too_deeply(world: World) -> Any:
    bomb = b"\x94\x0a\x01\xc3" + b"\x91" * 200 + b"\xc0"
    return say_raw(len(bomb).to_bytes(4, "big") + bomb)
