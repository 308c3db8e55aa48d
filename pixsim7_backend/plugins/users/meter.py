"""The app's usage meter, made from the settings when the plugin is loaded."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from .settings import UsersSettings
from .usage import UsageMeter


def install_meter(app: FastAPI) -> None:
    """Make the app's meter with the default quotas of the settings."""
    app.state.usage_meter = UsageMeter(UsersSettings().quotas)


async def meter_of(connection: HTTPConnection) -> UsageMeter:
    """Return the meter of the app that serves this request."""
    meter: UsageMeter = connection.app.state.usage_meter
    return meter


Meter = Annotated[UsageMeter, Depends(meter_of)]
