"""The dispatcher's behaviour is the same in both of its variants."""

from __future__ import annotations

from tests.integration.compat.conftest import variant

__all__ = ["variant"]
