"""Which headers pass between clients and jailed plugins, in both directions. Pure.

A plugin never sees what proves who the client is (cookies, tokens), nor what only proxies and servers say to
one another; and it cannot speak for the whole origin: no cookies, no CORS, no HSTS, no redirect elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from .errors import JailProtocolError

__all__ = ["MAX_HEADERS", "MAX_HEADER_BYTES", "for_client", "for_plugin"]

Headers = list[tuple[bytes, bytes]]

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 << 10
"""Names and values of one response together."""

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
     b"trailer", b"transfer-encoding", b"upgrade"}
)  # fmt: skip
_CREDENTIALS = frozenset({b"cookie", b"authorization", b"x-api-key", b"x-csrf-token", b"x-xsrf-token"})
#: What proxies say of the client, or the host of the user: a client may have made it up, and it is not the plugin's.
_HEARSAY = (b"x-forwarded-", b"forwarded", b"x-real-ip", b"x-original-", b"x-client-ip", b"cf-", b"true-client-ip",
            b"x-pixsim7-", b"x-user", b"x-remote-")  # fmt: skip
#: What a response says for its whole origin, for its connection, or to a proxy.
_OF_THE_ORIGIN = frozenset(
    {b"set-cookie", b"set-cookie2", b"strict-transport-security", b"clear-site-data", b"public-key-pins", b"expect-ct",
     b"alt-svc", b"service-worker-allowed", b"server", b"date", b"via", b"refresh", b"report-to", b"nel",
     b"reporting-endpoints", b"origin-agent-cluster", b"www-authenticate", b"x-sendfile", b"content-security-policy",
     b"content-security-policy-report-only", b"x-content-type-options", b"timing-allow-origin", b"sourcemap",
     b"x-sourcemap"}
)  # fmt: skip
_OF_THE_ORIGIN_BEGIN = (b"access-control-", b"x-accel-", b"x-forwarded-", b"x-pixsim7-", b"cross-origin-", b"ratelimit")
_PLACES = (b"location", b"content-location")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
#: A path of this host, or a relative one whose first part cannot be taken for a scheme; nowhere a backslash.
_HERE = re.compile(rb"(?:/(?!/)|[?#.]|[A-Za-z0-9_~-][!-.0-9;-\[\]-~]*(?:/|\Z))[!-\[\]-~]*")

#: What the host adds to every answer: its pages are documents of no origin, its types are what they say.
_ADDED: Headers = [(b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff")]


def for_plugin(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers of a request that its plugin may see."""
    return [
        (name, value)
        for name, value in headers
        if name not in _HOP_BY_HOP and name not in _CREDENTIALS and not name.startswith(_HEARSAY)
    ]


def for_client(headers: Any, *, origin: bytes) -> Headers:
    """Return the headers of a plugin's response that its client may see, with those that the host adds.

    ``origin`` is the request's own, like ``b"https://game.example"``: redirects may go there and nowhere else.

    Raises:
        JailProtocolError: they are too many or too long, hold what no header may hold, or lead elsewhere.
    """
    found = _parse(headers)
    kept: Headers = []
    for name, value in found:
        if name in _HOP_BY_HOP or name in _OF_THE_ORIGIN or name.startswith(_OF_THE_ORIGIN_BEGIN):
            continue
        if name in _PLACES and not _is_here(value, origin):
            raise JailProtocolError(f"its answer leads to another place: {name.decode()}: {value[:100]!r}")
        kept.append((name, value))
    return kept + _ADDED


def _is_here(place: bytes, origin: bytes) -> bool:
    if origin and place.startswith(origin):
        place = place.removeprefix(origin) or b"/"
        return place[:1] in (b"/", b"?", b"#") and bool(_HERE.fullmatch(place))
    return bool(_HERE.fullmatch(place))


def content_length(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """Return the length that a response declares, None when it declares none.

    Raises:
        JailProtocolError: it is no number, or there are several that differ.
    """
    declared = {value for name, value in headers if name == b"content-length"}
    if not declared:
        return None
    value = declared.pop()
    if declared or not value.isdigit() or len(value) > 18:
        raise JailProtocolError("its answer has a content-length that is no number")
    return int(value)


def _parse(headers: Any) -> Headers:
    if not isinstance(headers, list) or len(headers) > MAX_HEADERS:
        raise JailProtocolError(f"its answer has more than {MAX_HEADERS} headers, or none that could be read")
    found: Headers = []
    size = 0
    for pair in headers:
        if not (type(pair) is list and len(pair) == 2 and type(pair[0]) is bytes and type(pair[1]) is bytes):
            raise JailProtocolError("a header of its answer is no pair of bytes")
        name, value = pair[0].lower(), pair[1]
        size += len(name) + len(value)
        if size > MAX_HEADER_BYTES:
            raise JailProtocolError(f"the headers of its answer have more than {MAX_HEADER_BYTES:,} bytes")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise JailProtocolError(f"a header of its answer holds what no header may hold: {name[:100]!r}")
        found.append((name, value))
    return found
