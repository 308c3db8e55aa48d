"""Which addresses are out in the world, and not on this machine, in its network or at its provider. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

__all__ = ["is_public"]

#: Of providers of machines, for the machine alone; they look public.
_OF_PROVIDERS = frozenset({IPv4Address("168.63.129.16"), IPv4Address("100.100.100.200")})
_CLOSED = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24", "192.88.99.0/24",  # of protocols, of relays
            "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fec0::/10",
        ),
    )
)  # fmt: skip
_NAT64 = ip_network("64:ff9b::/96")
_6TO4 = ip_network("2002::/16")


def is_public(address: str) -> bool:
    """Tell whether an address belongs to some machine out there; False also for what is no address."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return False
        inner = _inner(found)
        if inner is not None:
            return is_public(str(inner))
    if found in _OF_PROVIDERS or any(found in each for each in _CLOSED if each.version == found.version):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Return the address of the old kind that one of the new kind leads to."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return address.sixtofour
    return None
