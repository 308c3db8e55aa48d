"""The process that starts servers for the fault tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Starts servers, each in a process of its own."""
    with Zygote() as process:
        yield process
