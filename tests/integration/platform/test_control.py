from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from pixsim7_backend.infrastructure.plugins import PluginState
from pixsim7_backend.infrastructure.plugins.admin import ControlServer, has_server, request
from pixsim7_backend.infrastructure.plugins.errors import ControlSocketError, NoServerError, ServerRunsError
from pixsim7_backend.infrastructure.plugins.testing import PluginHost, plugin_host, write_plugin

pytestmark = pytest.mark.anyio
IS_ROOT = os.geteuid() == 0


async def ask(path: Path, **message: Any) -> dict[str, Any]:
    return await anyio.to_thread.run_sync(functools.partial(request, path, message, timeout=20))


@asynccontextmanager
async def control(tmp_path: Path, path: Path | None = None) -> AsyncIterator[tuple[PluginHost, Path]]:
    """Two plugins, of which ``top`` needs ``base``, and a control socket."""
    write_plugin(tmp_path / "plugins", "base")
    write_plugin(tmp_path / "plugins", "top", dependencies=["base"])
    path = path or tmp_path / "run" / "control.sock"
    async with plugin_host(tmp_path / "plugins") as host:
        server = ControlServer(host.manager, path)
        await server.start()
        try:
            yield host, path
        finally:
            await server.close()


async def speak(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Send lines as they are over one connection; return the answers."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    answers = []
    try:
        for line in lines:
            writer.write(line)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            answer = await asyncio.wait_for(reader.readline(), 10)
            if not answer:
                break
            answers.append(json.loads(answer))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return answers


# --- what it answers ------------------------------------------------------------------------------


async def test_looks_and_changes(tmp_path: Path) -> None:
    """Every look answers; a change is planned, refused, carried out and undone, with the reasons."""
    async with control(tmp_path) as (host, path):
        listed = await ask(path, command="list")
        assert [(each["id"], each["state"]) for each in listed["result"]] == [("base", "enabled"), ("top", "enabled")]
        assert (await ask(path, command="plan"))["result"]["order"] == ["base", "top"]
        planned = await ask(path, command="disable", id="base", dry_run=True)
        assert [step["id"] for step in planned["result"]["change"]["stop"]] == ["top", "base"]
        assert planned["result"]["refused"]["type"] == "DependantsEnabledError"
        host.assert_state("base", PluginState.ENABLED)
        refused = await ask(path, command="disable", id="base")
        assert refused["ok"] is False
        assert refused["error"]["dependants"] == ["top"]
        done = await ask(path, command="disable", id="base", cascade=True)
        assert (done["result"]["plugin"]["state"], done["result"]["report"]["leaks"]) == ("disabled", [])
        host.assert_state("top", PluginState.BLOCKED)
        again = await ask(path, command="enable", id="base")
        assert [step["id"] for step in again["result"]["change"]["start"]] == ["base", "top"]
        host.assert_state("top", PluginState.ENABLED)
        assert (await ask(path, command="leaks"))["result"] == {"stopped": 2, "leaks": []}
        happened = (await ask(path, command="events"))["result"]["happenings"]
        told = [
            (each["kind"], each["plugin"]) for each in happened if each["kind"] in ("refused", "disabled", "blocked")
        ]
        assert told[:3] == [("refused", "base"), ("blocked", "top"), ("disabled", "base")]
        assert [each["plugin"] for each in (await ask(path, command="metrics"))["result"]] == ["base", "top"]


async def test_change_depends_on_the_version(tmp_path: Path) -> None:
    """A change with an old version is refused, with the present one is done; of two at once one is."""
    async with control(tmp_path) as (host, path):
        version = (await ask(path, command="get", id="top"))["result"]["record_version"]
        stale = await ask(path, command="disable", id="top", version=version - 1)
        assert (stale["ok"], stale["error"]["type"]) == (False, "StateConflictError")
        host.assert_state("top", PluginState.ENABLED)
        both = await asyncio.gather(
            ask(path, command="disable", id="top", version=version),
            ask(path, command="reload", id="top", version=version),
        )
        assert sorted(each["ok"] for each in both) == [False, True]


async def test_folders_over_the_socket(tmp_path: Path) -> None:
    """What installing asks for: follow a new folder, withdraw a plugin that others need, forget its switch."""
    async with control(tmp_path) as (host, path):
        new = write_plugin(tmp_path / "plugins", "new")
        added = await ask(path, command="refresh", folder=str(new))
        assert (added["result"]["id"], added["result"]["state"]) == ("new", "enabled")
        assert (await ask(path, command="refresh", folder=str(tmp_path / "none")))["result"] is None
        refused = await ask(path, command="withdraw", id="base")
        assert (refused["ok"], refused["error"]["dependants"]) == (False, ["top"])
        gone = await ask(path, command="withdraw", id="base", cascade=True)
        assert gone["result"]["state"] == "removed"
        host.assert_state("top", PluginState.BLOCKED)
        back = await ask(path, command="refresh", folder=str(tmp_path / "plugins" / "base"))
        assert back["result"]["state"] == "enabled"
        await ask(path, command="disable", id="new")
        assert host.manager.desired.is_on("new") is False
        assert (await ask(path, command="forget", id="new")) == {"ok": True, "result": None}
        assert host.manager.desired.is_on("new") is None
        for incomplete in ("refresh", "withdraw", "forget"):
            assert (await ask(path, command=incomplete))["error"]["type"] == "CommandRefusedError"


async def test_state_may_be_discarded_over_the_socket(tmp_path: Path) -> None:
    """A reload that is refused for the sake of its state is done when the state is given up."""
    write_plugin(tmp_path / "plugins", "quest", "def on_unload(): raise RuntimeError('no')")
    async with control(tmp_path) as (host, path):
        refused = await ask(path, command="reload", id="quest")
        assert refused["error"]["type"] == "StateNotHandedOverError"
        assert (await ask(path, command="reload", id="quest", discard_state=True))["ok"]
        assert host.record("quest").generation == 2


async def test_settings_over_the_socket(tmp_path: Path) -> None:
    """Settings are shown with their sources, changed by a patch, and refused when the plugin does not accept them."""
    write_plugin(
        tmp_path / "plugins",
        "sky",
        """
        from pydantic import BaseModel
        class Settings(BaseModel):
            level: int = 1
        settings_model = Settings
        """,
    )
    async with control(tmp_path) as (_, path):
        shown = (await ask(path, command="settings", id="sky"))["result"]
        assert (shown["values"], shown["sources"]) == ({"level": 1}, {})
        tried = await ask(path, command="change_settings", id="sky", patch={"level": 3}, dry_run=True)
        assert tried["result"]["settings"]["values"] == {"level": 1}
        done = await ask(path, command="change_settings", id="sky", patch={"level": 3})
        assert done["result"]["settings"]["values"] == {"level": 3}
        wrong = await ask(path, command="change_settings", id="sky", patch={"level": "high"})
        assert (wrong["ok"], wrong["error"]["type"]) == (False, "PluginSettingsError")
        assert (await ask(path, command="settings", id="sky"))["result"]["values"] == {"level": 3}
        assert (await ask(path, command="settings", id="base"))["error"]["type"] == "NoSettingsError"


# --- what may come in -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"\n", b"hello\n", b"[]\n", b"null\n", b"\xff\xfe\x00\n", b'{"command": "rm"}\n', b'{"command": "enable"}\n',
        b'{"command": "get", "id": 7}\n', b'{"command": "list", "extra": 1}\n', b'{"command": "get", "id": ""}\n',
        b'{"command": "change_settings", "id": "base"}\n', b'{"command": "list"\n', b"{" * 5000 + b"\n",
        b'{"command": "enable", "id": "\\u0000"}\n', b'{"command": "get", "id": "../../etc/passwd"}\n',
    ],
)  # fmt: skip
async def test_garbage_is_answered_and_forgotten(tmp_path: Path, line: bytes) -> None:
    """Whatever a line holds is answered by an error, and the same connection goes on."""
    async with control(tmp_path) as (_, path):
        wrong, right = await speak(path, line, b'{"command": "plan"}\n')
        assert wrong["ok"] is False
        assert wrong["error"]["type"] in ("CommandRefusedError", "PluginNotFoundError")
        assert wrong["error"]["message"]
        assert right["ok"] is True


async def test_endless_line_ends_the_connection(tmp_path: Path) -> None:
    """A line without an end is answered by an error when it is too long; others are served meanwhile."""
    async with control(tmp_path) as (_, path):
        [refused] = await speak(path, b"x" * ((1 << 20) + 70_000), b"\n")
        assert "longer than" in refused["error"]["message"]
        assert (await ask(path, command="plan"))["ok"] is True


async def test_half_requests_and_hasty_clients_do_no_harm(tmp_path: Path) -> None:
    """Clients that connect and leave, or leave before their answer, disturb nobody; what they began is finished."""
    async with control(tmp_path) as (host, path):
        for line in (b"", b'{"command": "li', b'{"command": "list"}\n', b'{"command": "disable", "id": "top"}\n'):
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.write(line)
            await writer.drain()
            writer.close()
        with anyio.fail_after(10):
            while host.record("top").state is not PluginState.DISABLED:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        assert (await ask(path, command="enable", id="top"))["ok"] is True


async def test_many_clients_at_once(tmp_path: Path) -> None:
    """Clients are served side by side, their changes one after the other; too many are turned away with a reason."""
    async with control(tmp_path) as (_, path):
        changes = [ask(path, command=each, id="top") for each in ("disable", "enable", "reload") * 5]
        answers = await asyncio.gather(*changes, *(ask(path, command="list") for _ in range(10)))
        assert all(each["ok"] or each["error"]["type"] != "UnforeseenError" for each in answers)
        idle = [await asyncio.open_unix_connection(str(path)) for _ in range(32)]
        await asyncio.sleep(0.05)
        turned_away = await speak(path, b"")
        assert "32 clients" in turned_away[0]["error"]["message"]
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.05)
        assert (await ask(path, command="plan"))["ok"] is True


async def test_closing_lets_a_change_end(tmp_path: Path) -> None:
    """Closing answers the change that is under way, drops idle clients, and removes the socket."""
    write_plugin(tmp_path / "plugins", "slow", "async def on_enable(): await asyncio.sleep(0.3)")
    async with plugin_host(tmp_path / "plugins", enable=True) as host:
        server = ControlServer(host.manager, tmp_path / "control.sock")
        await server.start()
        await host.manager.disable("slow")
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control.sock"))
        enabling = asyncio.create_task(ask(tmp_path / "control.sock", command="enable", id="slow"))
        await asyncio.sleep(0.1)
        await server.close()
        assert (await enabling)["result"]["plugin"]["state"] == "enabled"
        assert await reader.read() == b""
        writer.close()
        assert not (tmp_path / "control.sock").exists()
        await server.close()  # again does nothing


# --- who may come in ------------------------------------------------------------------------------


async def test_socket_and_directory_are_the_owners(tmp_path: Path) -> None:
    """The socket is 0600 in a 0700 directory, also where the directory was open before."""
    (tmp_path / "run").mkdir(mode=0o755)
    async with control(tmp_path) as (_, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.with_suffix(".lock").stat().st_mode) == 0o600


_AS_NOBODY = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
except PermissionError:
    print("no permission")
else:
    print(connection.makefile().readline())
"""


@pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody else")
async def test_other_users_are_refused(tmp_path: Path) -> None:
    """Somebody else cannot connect; and where modes were loosened, the system's word on who it is refuses them."""
    async with control(tmp_path) as (_, path):
        run = functools.partial(subprocess.run, capture_output=True, text=True, check=True, timeout=30)
        command = [sys.executable, "-S", "-c", _AS_NOBODY, str(path)]
        opened = [*path.parents[: len(path.parents) - 2]]
        for each in opened:
            if each.stat().st_uid == os.geteuid() and each != path.parent:
                each.chmod(0o755)
        assert (await anyio.to_thread.run_sync(run, command)).stdout == "no permission\n"
        path.parent.chmod(0o777)
        path.chmod(0o666)
        answer = json.loads((await anyio.to_thread.run_sync(run, command)).stdout)
        assert answer["ok"] is False
        assert "user 65534 may not control this server" in answer["error"]["message"]


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a directory away")
async def test_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """In a directory whose owner could replace the socket none is made."""
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", 65534, 65534)
    with pytest.raises(ControlSocketError, match="belongs to user 65534, who could replace it"):
        async with control(tmp_path):
            pass


# --- the file -------------------------------------------------------------------------------------


async def test_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    """What a killed server left behind does not stop the next one."""
    path = tmp_path / "run" / "control.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert not has_server(path)
    async with control(tmp_path) as (_, path):
        assert has_server(path)
        assert (await ask(path, command="plan"))["ok"] is True


async def test_second_server_is_refused(tmp_path: Path) -> None:
    """A server that answers is not pushed aside: the second one is refused, and the first goes on."""
    async with control(tmp_path) as (host, path):
        second = ControlServer(host.manager, path)
        with pytest.raises(ServerRunsError, match="another server listens there; stop it, or give this one a DATA_DIR"):
            await second.start()
        await second.close()
        assert (await ask(path, command="plan"))["ok"] is True


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A file, or a link to somewhere, at the socket's place is not removed."""
    path = tmp_path / "run" / "control.sock"
    path.parent.mkdir()
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(ControlSocketError, match="something else than a socket"):
        async with control(tmp_path):
            pass
    assert path.is_symlink()


async def test_long_paths_work(tmp_path: Path) -> None:
    """A path longer than a socket's address may be is reached another way."""
    path = tmp_path / ("d" * 100) / ("e" * 100) / "control.sock"
    async with control(tmp_path, path):
        assert path.is_socket()
        assert has_server(path)
        assert (await ask(path, command="plan"))["ok"] is True
    assert not path.exists()


async def test_nobody_there(tmp_path: Path) -> None:
    """Where no server listens the error says so and how to start one."""
    assert not has_server(tmp_path / "control.sock")
    with pytest.raises(NoServerError, match="no server listens there; start one with `pixsim7 serve`"):
        await ask(tmp_path / "control.sock", command="list")


async def test_strangers_answers_are_told_apart(tmp_path: Path) -> None:
    """Something else that listens there is not mistaken for a server, nor one that breaks off."""
    for answer, message in ((b"HTTP/1.1 400 No\r\n", "broke off"), (b"[]\n", "not a server"), (b"", "broke off")):
        path = tmp_path / f"{len(answer)}.sock"

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes = answer) -> None:
            writer.write(answer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        async with await asyncio.start_unix_server(serve, path):
            with pytest.raises(ControlSocketError, match=message):
                await ask(path, command="list")
