"""Whose request it is."""

from __future__ import annotations

import pytest

from pixsim7_backend.infrastructure.plugins._limits.client import client_address


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:2::", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:3::1", "2001:0db8:0001:0003::/64"),
        ("::1", "0000:0000:0000:0000::/64"),
        ("fe80::1%eth0", "fe80:0000:0000:0000::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("testclient", "testclient"),
        ("a:b\0", "a:b\0"),
    ],
)
def test_an_address_is_one_client(host: str, client: str) -> None:
    """IPv4 addresses count one by one, IPv6 ones by the network of 64 bits; IPv4 in IPv6 is IPv4."""
    assert client_address({"type": "http", "client": (host, 1)}) == client


@pytest.mark.parametrize("scope", [{"type": "http", "client": None}, {"type": "http"}])
def test_connections_without_an_address_are_one_client(scope: dict[str, object]) -> None:
    """Over a Unix socket nobody can be told apart."""
    assert client_address(scope) == ""
