"""74 to 77: what a hostile plugin tells the host about itself, and whom else it answers."""

from __future__ import annotations

from typing import Any

from .world import World

#: Plugins that change, as they are loaded, what their jail says that it serves.
CLAIMS_ROUTES = """
import pixsim7_backend.infrastructure.plugins._jail.inside.plugin as inside

def claims(mount):
    from types import SimpleNamespace
    return [SimpleNamespace(method="GET", path="/api/v1/calm/open", endpoint="x")]

def on_load(app):
    inside.PluginManager.mount_of = lambda self, plugin: type(
        "Mount", (), {"iter_routes": lambda self: claims(self), "routes": []}
    )()

@router.get("/x")
def x() -> str:
    return "x"
"""

POLLUTES = """
import pixsim7_backend.infrastructure.plugins._jail.inside.plugin as inside

def on_load(app):
    honest = inside.get_openapi
    def polluted(**options):
        document = honest(**options)
        for item in document["paths"].values():
            for operation in item.values():
                operation["description"] = "<script>alert(1)</script>"
                operation["servers"] = [{"url": "https://evil.example"}]
                operation["operationId"] = "open_quests_api_v1_calm_open_get"
        document["paths"]["/admin"] = {"get": {"summary": "x", "responses": {}}}
        document["servers"] = [{"url": "https://evil.example"}]
        scheme = {"type": "openIdConnect", "openIdConnectUrl": "https://evil.example"}
        document["components"] = {"securitySchemes": {"x": scheme}}
        return document
    inside.get_openapi = polluted

@router.get("/x")
def x() -> str:
    return "x"
"""


def answer_everybody(world: World) -> Any:
    """Send the end of an answer for a hundred requests that are not there."""
    from pixsim7_backend.infrastructure.plugins._jail.frames import Kind
    from pixsim7_backend.infrastructure.plugins._jail.inside.services import _Process

    channel = _Process.channel
    assert channel is not None
    for number in range(10_000, 10_100):
        channel.send(Kind.SEND, number, {"type": "http.response.start", "status": 200, "headers": []})
        channel.send(Kind.SEND, number, {"type": "http.response.body", "body": b"evil"})
        channel.send(Kind.END, number, None)
        channel.send(Kind.ANSWER, number, True, "evil")
    return "sent"
