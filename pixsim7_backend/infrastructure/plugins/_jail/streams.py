"""How bodies travel: in chunks of limited size, of which a limited number is under way. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["CHUNK", "WINDOW", "body_size", "iter_chunks"]

CHUNK = 1 << 16
"""Bytes of a body that one frame carries at most."""
WINDOW = 1 << 18
"""Bytes of body that each side of a stream may send before the other one has asked for more."""

_WITH_BODY = ("http.request", "http.response.body")
_WEBSOCKET = ("websocket.receive", "websocket.send")


def body_size(message: Mapping[str, Any]) -> int:
    """Return how many bytes of credit an ASGI message takes; text counts as its UTF-8."""
    kind = message["type"]
    if kind in _WITH_BODY:
        return len(message.get("body") or b"")
    if kind in _WEBSOCKET:
        content = message.get("bytes")
        return len(content) if content is not None else len((message.get("text") or "").encode())
    return 0


def iter_chunks(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the message in pieces that fit: a long body becomes several, a WebSocket message stays whole."""
    body = message.get("body") or b""
    if message["type"] not in _WITH_BODY or len(body) <= CHUNK:
        yield message
        return
    for start in range(0, len(body), CHUNK):
        is_last = start + CHUNK >= len(body)
        yield {
            **message,
            "body": bytes(body[start : start + CHUNK]),
            "more_body": not is_last or bool(message.get("more_body")),
        }
