"""56 to 77: answers of a hostile plugin; they are copied into its folder."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

router = APIRouter()


class Raw(Response):
    """An answer of exactly these ASGI parts."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], *bodies: bytes) -> None:
        super().__init__(status_code=status)
        self.start = {"type": "http.response.start", "status": status, "headers": headers}
        self.bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self.start)
        for body in self.bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@router.get("/plain")
def plain() -> str:
    return "plain"


@router.get("/environment")
def environment() -> dict[str, str]:
    return {**os.environ}


@router.get("/bomb")
def bomb() -> Response:
    return Response(gzip.compress(bytes(64 << 20)), headers={"content-encoding": "gzip"})


@router.get("/endless")
async def endless() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield bytes(60_000)

    return StreamingResponse(pieces())


@router.get("/dripping")
async def dripping() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(10)

    return StreamingResponse(pieces())


@router.get("/stubborn")
async def stubborn() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            try:
                yield b"x"
                await asyncio.sleep(0.1)
            except BaseException:  # noqa: BLE001 - that is the attempt
                await asyncio.shield(asyncio.sleep(3600))

    return StreamingResponse(pieces())


@router.get("/many-headers")
def many_headers() -> Response:
    return Raw(200, [(f"x-{number}".encode(), b"y") for number in range(10_000)], b"ok")


@router.get("/split/{where}")
def split(where: str) -> Response:
    evil = b"x\r\nx-evil: 1"
    return Raw(200, [(evil, b"y")] if where == "name" else [(b"x-plain", evil)], b"ok")


@router.get("/two-lengths")
def two_lengths() -> Response:
    headers = [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")]
    return Raw(200, headers, b"0\r\n\r\nHTTP/1.1 200 OK\r\nx-evil: 1\r\ncontent-length: 0\r\n\r\n")


@router.get("/length/{declared}")
def length(declared: int) -> Response:
    return Raw(200, [(b"content-length", str(declared).encode())], b"0123456789")


@router.get("/status/{status}")
def status(status: int) -> Response:
    return Raw(status, [], b"a body")


@router.get("/headers")
async def headers(request: Request) -> dict[str, Any]:
    return {**request.headers} | {"client": str(request.client)}


@router.get("/cookie")
def cookie() -> Response:
    return Response("ok", headers={"set-cookie": "session=stolen; path=/"})


@router.get("/away")
def away(to: str) -> Response:
    return Raw(307, [(b"location", to.encode())])


@router.get("/origin")
def origin() -> Response:
    return Response(
        "ok",
        headers={
            "access-control-allow-origin": "*", "access-control-allow-credentials": "true",
            "strict-transport-security": "max-age=99999999", "clear-site-data": '"*"',
        },
    )  # fmt: skip


@router.get("/files/{path:path}")
def files(path: str) -> Response:
    return Response(Path(Path(__file__).parent, path).read_bytes())


@router.get("/where/{path:path}")
async def where(path: str, request: Request) -> dict[str, str]:
    return {"path": request.scope["path"], "root": request.scope["root_path"], "url": str(request.url)}


@router.websocket("/ws")
async def ws(socket: WebSocket) -> None:
    await socket.accept(headers=[(b"set-cookie", b"session=stolen")])
    await socket.send_text(str({**socket.headers}))
    await socket.close()
