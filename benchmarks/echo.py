"""The least that another process can do for a request: it sends back what it was sent, over a Unix socket."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import uvloop


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class EchoClient(asyncio.Protocol):
    """Sends a message to that process and waits for it to come back; one at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] | None = None

    async def ask(self, message: bytes) -> bytes:
        """Return what came back."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._answer is not None, "nobody asked"
        self._answer.set_result(data)

    def close(self) -> None:
        """Ask no more."""
        self._transport.abort()


@asynccontextmanager
async def echoing(path: str) -> AsyncIterator[EchoClient]:
    """Run the other process until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.echo", path, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()  # it listens
        _, client = await asyncio.get_running_loop().create_unix_connection(EchoClient, path)
        yield client
        client.close()
    finally:
        process.terminate()
        await process.wait()


async def _serve(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(_Echo, path)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
