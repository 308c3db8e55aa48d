"""What a confined plugin may ask of the web, and which headers pass. Pure but for the parsing of addresses."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

__all__ = ["HttpLimits", "Outgoing", "RefusedError", "check_request", "passed_back"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_PORTS = {"https": 443, "http": 80}
_MOST_HEADERS = 100
#: The connection is the host's, and so is what is said of it.
_NOT_SENT = frozenset(
    {b"host", b"connection", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
     b"transfer-encoding", b"upgrade", b"expect", b"accept-encoding"}
)  # fmt: skip
_NOT_PASSED_BACK = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
     b"upgrade"}
)  # fmt: skip


class RefusedError(ValueError):
    """A request is none that plugins may send; ``kind`` is for code, the text says why."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What one jail may ask of the web. Sizes are in bytes, durations in seconds."""

    concurrent: int = 8
    request_size: int = 16 << 20
    response_size: int = 32 << 20
    """Unpacked."""
    headers: int = 32 << 10
    """Names and values together, in each direction."""
    url: int = 8 << 10
    resolve_time: float = 5.0
    connect_time: float = 5.0
    idle_time: float = 30.0
    """Between two pieces, in either direction."""
    total_time: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A request that may be sent, as far as its form goes."""

    method: str
    url: httpx.URL
    host: str
    port: int
    length: int | None
    """Of its body, where that is known."""
    headers: list[tuple[bytes, bytes]]

    @property
    def is_default_port(self) -> bool:
        return _PORTS[self.url.scheme] == self.port

    @property
    def permission(self) -> str:
        """What must be granted for it."""
        return f"net:{self.host}" if self.is_default_port else f"net:{self.host}:{self.port}"

    def at(self, address: str, body: AsyncIterator[bytes] | None) -> httpx.Request:
        """Return the request to this very address, with the name where the server looks for it."""
        name = self.host if self.is_default_port else f"{self.host}:{self.port}"
        headers = [(b"host", name.encode()), *self.headers, (b"accept-encoding", b"gzip")]
        return httpx.Request(
            self.method, self.url.copy_with(host=address, port=self.port, fragment=None), headers=headers,
            content=body, extensions={"sni_hostname": self.host},
        )  # fmt: skip


def check_request(method: Any, url: Any, headers: Any, limits: HttpLimits, *, allow_plain: bool) -> Outgoing:
    """Return what a plugin wants to be sent.

    Raises:
        RefusedError: it is no request for plugins.
    """
    if not isinstance(method, str) or method not in _METHODS:
        raise RefusedError("ValueError", f"a request is one of {', '.join(sorted(_METHODS))}")
    parsed = _parse_url(url, limits)
    if parsed.scheme != "https" and not (allow_plain and parsed.scheme == "http"):
        raise RefusedError("NotGrantedError", "plugins send requests over https only")
    if parsed.userinfo:
        raise RefusedError("ValueError", "a URL holds no user and no password; use the header Authorization")
    host = parsed.raw_host.decode("ascii", "replace").lower()
    if not _HOST.fullmatch(host):
        raise RefusedError("NotGrantedError", f"{host[:100]!r} is no name of a host that could be granted")
    kept = _headers(headers, _NOT_SENT, limits)
    return Outgoing(
        method=method, url=parsed, host=host, port=parsed.port or _PORTS[parsed.scheme], length=_length(kept),
        headers=kept,
    )  # fmt: skip


def passed_back(headers: Sequence[tuple[bytes, bytes]], limits: HttpLimits, *, is_unpacked: bool) -> Any:
    """Return the headers of an answer for the plugin, without those that were about the connection.

    Raises:
        RefusedError: they are too many.
    """
    left_out = _NOT_PASSED_BACK | ({b"content-encoding", b"content-length"} if is_unpacked else set())
    return [[name, value] for name, value in _headers([list(each) for each in headers], left_out, limits)]


def _parse_url(url: Any, limits: HttpLimits) -> httpx.URL:
    if not isinstance(url, str) or len(url) > limits.url:
        raise RefusedError("ValueError", f"a URL has up to {limits.url:,} characters")
    try:
        return httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise RefusedError("ValueError", f"that is no URL: {error}") from error


def _length(headers: list[tuple[bytes, bytes]]) -> int | None:
    lengths = [value for name, value in headers if name == b"content-length"]
    if not lengths:
        return None
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise RefusedError("ValueError", "the header Content-Length is one number")
    return int(lengths[0])


def _headers(headers: Any, left_out: frozenset[bytes] | set[bytes], limits: HttpLimits) -> list[tuple[bytes, bytes]]:
    if not isinstance(headers, list) or len(headers) > _MOST_HEADERS:
        raise RefusedError("ValueError", f"there may be {_MOST_HEADERS} headers")
    size = 0
    kept = []
    for pair in headers:
        match pair:
            case [bytes() as name, bytes() as value] if _NAME.fullmatch(name) and _VALUE.fullmatch(value):
                size += len(name) + len(value)
            case _:
                raise RefusedError("ValueError", f"a header holds what no header may hold: {pair!r:.100}")
        if size > limits.headers:
            raise RefusedError("ValueError", f"headers may have {limits.headers:,} bytes")
        if name.lower() not in left_out:
            kept.append((name.lower(), value))
    return kept
