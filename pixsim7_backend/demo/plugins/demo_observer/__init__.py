"""Shows over HTTP what happens inside the server: every event, in order."""

from .manifest import manifest, on_load, router

__all__ = ["manifest", "router", "on_load"]
