"""What can go wrong between the host and a jail. What an operator sees of it are the platform's own errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class JailGoneError(Exception):
    """There is no jail any more that could answer."""


class JailProtocolError(Exception):
    """The jail said what no jail of ours says; it is not trusted further."""


class JailCallError(Exception):
    """The jail says that something it was asked for went wrong.

    ``said`` is what it said: perhaps ``type``, ``message``, ``file`` and ``line``, all of a stranger's choosing.
    """

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(str(said.get("message", "it did not say what"))[:2000])
        self.said = said
