"""JSON that is sent with curl's default content type is read as JSON."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FORM = b"application/x-www-form-urlencoded"


class CurlJson:
    """ASGI middleware: where ``curl -d '{…}'`` claims to send a form, the wrong content type is taken away.

    No form begins with a brace or a bracket (they would be percent-encoded), so real forms stay
    forms. That a page of another site could send such a request too does no harm as long as no
    cookie authenticates. The app must be made with ``strict_content_type=False``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _claims_form(scope):
            await self.app(scope, receive, send)
            return
        first = await receive()
        if first.get("body", b"").lstrip()[:1] in (b"{", b"["):
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        await self.app(scope, _replay(first, receive), send)


def _claims_form(scope: Scope) -> bool:
    return any(
        name == b"content-type" and value.partition(b";")[0].strip().lower() == _FORM
        for name, value in scope["headers"]
    )


def _replay(first: Message, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the message which was already taken, then the rest."""
    waiting = [first]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
