"""Which headers pass between clients and jailed plugins."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._jail.errors import JailProtocolError
from pixsim7_backend.infrastructure.plugins._jail.headers import (
    MAX_HEADERS,
    content_length,
    for_client,
    for_plugin,
)


def sent(headers: Any) -> list[tuple[bytes, bytes]]:
    """Return what a client of https://game.example gets."""
    return for_client(headers, origin=b"https://game.example")


@pytest.mark.parametrize(
    "name",
    ["cookie", "authorization", "proxy-authorization", "x-forwarded-for", "x-forwarded-user", "forwarded", "x-real-ip",
     "x-user-id", "x-pixsim7-admin", "connection", "transfer-encoding", "te", "upgrade"],
)  # fmt: skip
def test_the_plugin_does_not_see(name: str) -> None:
    """Neither credentials nor what proxies and servers tell each other reaches a plugin."""
    assert for_plugin([(name.encode(), b"x"), (b"accept", b"*/*")]) == [(b"accept", b"*/*")]


@pytest.mark.parametrize(
    "name",
    ["Set-Cookie", "access-control-allow-origin", "strict-transport-security", "clear-site-data", "alt-svc", "refresh",
     "transfer-encoding", "connection", "x-accel-redirect", "x-sendfile", "server", "www-authenticate",
     "ratelimit-limit", "content-security-policy", "service-worker-allowed"],
)  # fmt: skip
def test_the_client_does_not_see(name: str) -> None:
    """What speaks for the whole origin, the connection or a proxy is the host's to say."""
    assert dict(sent([[name.encode(), b"x"], [b"etag", b'"1"']])) == {
        b"etag": b'"1"',
        b"content-security-policy": b"sandbox",
        b"x-content-type-options": b"nosniff",
    }


@pytest.mark.parametrize(
    "place",
    [
        "/api/v1/quest",
        "quest?page=2",
        "?page=2",
        "#top",
        "../other",
        "/a/../b",
        "quest/1:2",
        "https://game.example/api",
    ],
)
def test_redirects_stay_here(place: str) -> None:
    """A relative place is on this host."""
    assert (b"location", place.encode()) in sent([[b"location", place.encode()]])


@pytest.mark.parametrize(
    "place",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
     "https://game.example.evil/", "https://game.example@evil/", "https://game.example//evil", "data:text/html,x",
     "http:evil", "", " /x", "/x y", "/\tx"],
)  # fmt: skip
def test_redirects_elsewhere_are_refused(place: str) -> None:
    """Whatever a browser may take for another origin or for a script is no answer of a plugin."""
    with pytest.raises(JailProtocolError, match="leads to another place"):
        sent([[b"location", place.encode()]])


@pytest.mark.parametrize(
    "headers",
    [
        None,
        "text",
        [[b"a", b"b", b"c"]],
        [["a", "b"]],
        [[b"a b", b"c"]],
        [[b"", b"c"]],
        [[b"a:", b"c"]],
        [[b"a", b"b\r\nset-cookie: x=1"]],
        [[b"a\r\nb", b"c"]],
        [[b"a", b"b\x00c"]],
        [[b"a", b"b\x7fc"]],
        [[b"a", b"b"]] * (MAX_HEADERS + 1),
        [[b"a", b"b" * 40_000]],
    ],
)
def test_headers_that_are_none_are_refused(headers: Any) -> None:
    """Another line cannot be smuggled in, and neither number nor size is without end."""
    with pytest.raises(JailProtocolError):
        sent(headers)


@given(st.lists(st.lists(st.binary(max_size=12), min_size=2, max_size=2), max_size=5))
def test_no_answer_holds_a_line_break(headers: list[list[bytes]]) -> None:
    """Whatever comes, what goes on is one line a header, in lower case."""
    try:
        passed = sent(headers)
    except JailProtocolError:
        return
    assert all(b"\r" not in part and b"\n" not in part and b"\0" not in part for pair in passed for part in pair)
    assert all(name == name.lower() for name, _ in passed)


def test_a_declared_length_is_one_number() -> None:
    """Two that differ, signs and letters are how requests are smuggled."""
    assert content_length([(b"etag", b"1")]) is None
    assert content_length([(b"content-length", b"12"), (b"content-length", b"12")]) == 12
    for values in ([b"1", b"2"], [b"+1"], [b"-1"], [b"0x1"], [b""], [b"1 "], [b"9" * 19], ["²".encode()]):
        with pytest.raises(JailProtocolError):
            content_length([(b"content-length", value) for value in values])
