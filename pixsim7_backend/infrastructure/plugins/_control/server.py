"""The control socket: the way in for whoever owns the server's process, also when nobody can log in.

A Unix socket in a directory that only its owner may write. One JSON object per line is a request, one
per line its answer: ``{"command": "enable", "id": "game-stealth", "dry_run": true}`` is answered by
``{"ok": true, "result": …}`` or ``{"ok": false, "error": {"type": …, "message": …, …}}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from pixsim7_backend.infrastructure.plugins._manager import PluginManager
from pixsim7_backend.infrastructure.plugins.errors import CommandRefusedError, PluginError

from .commands import Commands, Json, Terms
from .socket import bound_socket, only_server, peer_uid

logger = logging.getLogger("pixsim7.plugins")

_LONGEST_LINE = 1 << 20
_MOST_CLIENTS = 32
_CLOSING_SECONDS = 5.0
_DISCARDING_SECONDS = 2.0


# --- requests -------------------------------------------------------------------------------------


class Request(BaseModel):
    """One request; ``id`` names the plugin where the command is about one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: Literal[
        "list", "get", "plan", "events", "leaks", "metrics", "settings",
        "grants", "enable", "disable", "reload", "retry", "grant", "change_settings", "refresh", "withdraw", "revoke",
        "forget", "follow_grants",
    ]  # fmt: skip
    id: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    dry_run: bool = False
    cascade: bool = False
    discard_state: bool = False
    """Of reload: do not ask the old code for its state."""
    version: int | None = None
    """Change the plugin only if its record has this version."""
    grant: list[Annotated[str, StringConstraints(max_length=4096)]] | None = None
    """Of grant and enable: the permissions to grant; the others that the plugin asks for are declined.

    Of refresh: those to grant before it starts; about others nothing is decided.
    """
    patch: dict[str, Any] | None = None
    """Of change_settings: the merge patch."""
    since: int = 0
    """Of events: only happenings with a higher number."""
    folder: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    """Of refresh: the plugin's folder."""

    @property
    def changed_folder(self) -> str:
        if self.folder is None:
            raise CommandRefusedError(problem=f'the command {self.command!r} is about a folder; add "folder"')
        return self.folder

    @property
    def plugin(self) -> str:
        if self.id is None:
            raise CommandRefusedError(problem=f'the command {self.command!r} is about one plugin; add "id"')
        return self.id

    @property
    def merge_patch(self) -> dict[str, Any]:
        if self.patch is None:
            raise CommandRefusedError(problem=f'the command {self.command!r} needs a "patch", like {{"level": 3}}')
        return self.patch

    @property
    def granted(self) -> list[str]:
        if self.grant is None:
            raise CommandRefusedError(problem=f'the command {self.command!r} needs a "grant", like ["db:read"]')
        return self.grant

    def terms(self, by: str) -> Terms:
        return Terms(dry_run=self.dry_run, versions=None if self.version is None else (self.version,), by=by)


def parse_request(line: bytes) -> Request:
    """Return the request of a line; raise CommandRefusedError that says what is wrong with it."""
    try:
        return Request.model_validate_json(line)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, each['loc'])) or 'request'}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False)
        ]
        raise CommandRefusedError(problem=f"the request is not valid: {'; '.join(problems[:3])}") from None


async def answer(commands: Commands, asked: Request, *, by: str = "") -> Any:
    """Return the result of a request; raise PluginError as :class:`Commands` does. ``by`` is who asks."""
    terms = asked.terms(by)
    looks: dict[str, Callable[[], Any]] = {
        "list": commands.plugins,
        "get": lambda: commands.plugin(asked.plugin),
        "plan": commands.plan,
        "events": lambda: commands.events(asked.since),
        "leaks": commands.leaks,
        "metrics": commands.metrics,
        "settings": lambda: commands.settings(asked.plugin),
        "grants": lambda: commands.grants(asked.plugin),
    }
    if asked.command in looks:
        return looks[asked.command]()
    changes: dict[str, Callable[[], Awaitable[Json | None]]] = {
        "enable": lambda: commands.enable(asked.plugin, terms, grant=asked.grant),
        "disable": lambda: commands.disable(asked.plugin, terms, cascade=asked.cascade),
        "reload": lambda: commands.reload(asked.plugin, terms, discard_state=asked.discard_state),
        "retry": lambda: commands.retry(asked.plugin, terms),
        "grant": lambda: commands.grant(asked.plugin, asked.granted, terms),
        "change_settings": lambda: commands.change_settings(asked.plugin, asked.merge_patch, terms),
        "refresh": lambda: commands.refresh(asked.changed_folder, terms, grant=asked.grant),
        "withdraw": lambda: commands.withdraw(asked.plugin, cascade=asked.cascade),
        "revoke": lambda: commands.revoke(asked.plugin),
        "forget": lambda: commands.forget(asked.plugin),
        "follow_grants": commands.follow_grants,
    }
    return await changes[asked.command]()


# --- the server -----------------------------------------------------------------------------------


class ControlServer:
    """Answers requests about a manager's plugins at ``path``, to this process's user and to root only.

    A socket that a dead server left behind is replaced. Requests of one connection are answered one
    after the other, those of several at the same time; a change that has begun is finished even when
    its client is gone.
    """

    def __init__(self, manager: PluginManager, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._commands = Commands(manager)
        self._clients: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._undo = contextlib.ExitStack()

    async def start(self) -> None:
        """Listen.

        Raises:
            ServerRunsError: another server answers at this path.
            ControlSocketError: the socket cannot be made there safely.
        """
        with contextlib.ExitStack() as undo:
            undo.enter_context(only_server(self.path))
            listener = undo.enter_context(bound_socket(self.path))
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_LONGEST_LINE)
            self._undo = undo.pop_all()

    async def close(self) -> None:
        """Stop listening, let the requests under way be answered for a while, and remove the socket."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for client in self._clients - self._busy:
            client.cancel()
        if self._clients:
            _, late = await asyncio.wait(self._clients, timeout=_CLOSING_SECONDS)
            for client in late:
                client.cancel()
            if late:
                await asyncio.wait(late)
        self._undo.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            refusal = self._refusal(writer)
            if refusal:
                await _write(writer, _failure(CommandRefusedError(problem=refusal)))
                await _discard(reader)
            else:
                await self._converse(reader, writer, task)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the server goes
        finally:
            self._clients.discard(task)
            self._busy.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    def _refusal(self, writer: asyncio.StreamWriter) -> str:
        peer = peer_uid(writer.get_extra_info("socket"))
        if peer is not None and peer not in (os.geteuid(), 0):
            logger.warning("User %d was refused at the control socket", peer)
            return f"user {peer} may not control this server; ask as the user that runs it, or as root"
        if len(self._clients) > _MOST_CLIENTS:
            return f"{_MOST_CLIENTS} clients are connected already; end one of them"
        return ""

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> None:
        while True:
            try:
                line = await reader.readuntil()
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                problem = f"a request is longer than {_LONGEST_LINE} bytes"
                await _write(writer, _failure(CommandRefusedError(problem=problem)))
                await _discard(reader)
                return
            self._busy.add(task)
            await _write(writer, await self._reply(line, peer_uid(writer.get_extra_info("socket"))))
            self._busy.discard(task)
            if self._server is None:
                return

    async def _reply(self, line: bytes, peer: int | None) -> Json:
        by = "the control socket" if peer is None else f"user {peer} at the control socket"
        try:
            return {"ok": True, "result": await answer(self._commands, parse_request(line), by=by)}
        except PluginError as error:
            return _failure(error)
        except Exception:
            logger.exception("A request on the control socket failed")
            text = "something went wrong in the server; its log says what"
            return {"ok": False, "error": {"type": "UnforeseenError", "message": text}}


def _failure(error: PluginError) -> Json:
    return {"ok": False, "error": error.to_json()}


async def _discard(reader: asyncio.StreamReader) -> None:
    """Read on to the end of the line for a while: closing before that would take the answer back."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARDING_SECONDS):
            while (chunk := await reader.read(1 << 16)) and b"\n" not in chunk:
                pass


async def _write(writer: asyncio.StreamWriter, reply: Json) -> None:
    writer.write(json.dumps(reply, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n")
    await writer.drain()
