"""What code in the jail calls the host's broker with."""

from __future__ import annotations

from typing import Any

from .channel import BrokerCallError, Channel, ShareUsedUpError

__all__ = ["BrokerCallError", "ShareUsedUpError", "acall", "call", "is_jailed", "use"]


class _Process:
    """The channel of the process, which is one jail."""

    channel: Channel | None = None


def use(channel: Channel) -> None:
    """Let :func:`call` and :func:`acall` go over this channel."""
    _Process.channel = channel


def is_jailed() -> bool:
    """Tell whether this process is a jail."""
    return _Process.channel is not None


def call(method: str, *args: Any) -> Any:
    """Let the host do something, like ``db.execute``; see :meth:`Channel.call`.

    Raises:
        ShareUsedUpError: the plugin has used its share of the minute.
        BrokerCallError: it was refused or failed, or this is no jail.
    """
    return _channel().call(method, *args)


async def acall(method: str, *args: Any) -> Any:
    """Async twin of :func:`call`."""
    return await _channel().acall(method, *args)


def _channel() -> Channel:
    if _Process.channel is None:
        raise BrokerCallError("NoHostError", "this code does not run in a jail, so there is no host to ask")
    return _Process.channel
