"""39 to 48: every way out that the kernel knows."""

from __future__ import annotations

import pytest

from tests.escape.arena import Arena
from tests.escape.attempts import network

pytestmark = pytest.mark.anyio


async def test_039_connect_to_database(arena: Arena) -> None:
    """The database's port is out of reach, and nobody can connect to the plugin."""
    await arena.denied(network.connect_to_database)


async def test_040_connect_by_sending(arena: Arena) -> None:
    """TCP Fast Open, which Landlock lets pass, is closed."""
    await arena.denied(network.connect_by_sending)


async def test_041_connect_many_ways(arena: Arena) -> None:
    """Multipath TCP, which Landlock lets pass, is closed."""
    await arena.denied(network.connect_many_ways)


async def test_042_send_datagram(arena: Arena) -> None:
    """No datagram leaves it."""
    await arena.denied(network.send_datagram)


async def test_043_open_strange_sockets(arena: Arena) -> None:
    """There are no raw, packet, netlink or vsock sockets."""
    await arena.denied(network.open_strange_sockets)


async def test_044_connect_to_path(arena: Arena) -> None:
    """Sockets of databases and container engines in the file system are out of reach."""
    await arena.denied(network.connect_to_path)


async def test_045_connect_to_abstract_name(arena: Arena) -> None:
    """So are those without a path."""
    await arena.denied(network.connect_to_abstract_name)


async def test_046_send_from_pair(arena: Arena) -> None:
    """A pair of datagram sockets, which could send to any path, is refused."""
    await arena.denied(network.send_from_pair)


async def test_047_pass_descriptor(arena: Arena) -> None:
    """No descriptor passes over a socket, the channel to the host included."""
    await arena.denied(network.pass_descriptor)


async def test_048_encrypt_in_kernel(arena: Arena) -> None:
    """The kernel's cryptography, a part with a past, is closed."""
    await arena.denied(network.encrypt_in_kernel)
