"""The guard says which of FastAPI's private names are missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, routing

from pixsim7_backend.infrastructure.plugins._dispatch import PluginRoute, fastapi_internals
from pixsim7_backend.infrastructure.plugins._dispatch.fastapi_internals import find_missing
from pixsim7_backend.infrastructure.plugins._dispatch.route import PublicPluginRoute


def test_installed_fastapi_has_everything() -> None:
    """The FastAPI that this package is tested with offers every name of the fast variant."""
    assert find_missing() == ()


@pytest.mark.parametrize(
    "name",
    ["_IncludedRouter", "_EffectiveRouteContext", "_route_selected", "_FASTAPI_SCOPE_KEY", "wrap_app_with_body_limit"],
)
def test_missing_name_is_found(name: str) -> None:
    """A name that a later FastAPI drops is reported."""
    without = SimpleNamespace(**{key: value for key, value in vars(routing).items() if key != name})
    assert any(missing.startswith(name) for missing in find_missing(without))


def test_changed_signature_and_key_are_found() -> None:
    """A function with other parameters and a key with another value are reported too."""

    def selected(scope: Any) -> None: ...

    changed = SimpleNamespace(**vars(routing) | {"_route_selected": selected, "_FASTAPI_SCOPE_KEY": "other"})
    assert find_missing(changed) == ("_FASTAPI_SCOPE_KEY", "_route_selected(scope, path, mount)")


def test_falls_back_to_the_public_variant(variant: str) -> None:
    """With a name missing, the route uses the public protocol only."""
    route = PluginRoute.install(FastAPI())
    assert isinstance(route, PublicPluginRoute) is (variant == "public") is not fastapi_internals.is_usable()
