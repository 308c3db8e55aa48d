"""A plugin like any other, which the zygote runs once before the first jail is forked."""

from .manifest import manifest as manifest
from .manifest import on_enable as on_enable
from .manifest import router as router
