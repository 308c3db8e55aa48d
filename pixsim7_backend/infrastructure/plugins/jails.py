"""For hosts of confined plugins: what runs them, and what a service that they call must be."""

from __future__ import annotations

from ._jail.broker import BrokerError, CallContext, JailIdentity, Service, ServiceSession
from ._jail.default import make_jails
from ._jail.inside.services import acall, call, is_jailed
from ._jail.jails import Jails, ScopeExtension

__all__ = [
    "BrokerError",
    "CallContext",
    "JailIdentity",
    "Jails",
    "ScopeExtension",
    "Service",
    "ServiceSession",
    "acall",
    "call",
    "is_jailed",
    "make_jails",
]
