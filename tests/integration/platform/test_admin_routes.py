from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException

from pixsim7_backend.infrastructure.plugins import PluginState
from pixsim7_backend.infrastructure.plugins.admin import admin_router
from pixsim7_backend.infrastructure.plugins.testing import PluginHost, plugin_host, write_plugin

pytestmark = pytest.mark.anyio
ADMIN = {"X-Role": "admin"}
AT = "/admin/plugins"


async def only_admins(x_role: Annotated[str, Header()] = "") -> None:
    """Stand for whatever guard a host has."""
    if x_role != "admin":
        raise HTTPException(403, "only admins")


@asynccontextmanager
async def operated(tmp_path: Path, **options: Any) -> AsyncIterator[PluginHost]:
    """A plain app with the routes, and plugins ``base`` and ``top``, of which the second needs the first."""
    app = FastAPI()
    app.include_router(admin_router(guard=only_admins, prefix=AT, tags=["plugins"]))
    write_plugin(tmp_path / "plugins", "base", '@router.get("/hi")\ndef hi() -> str: return "one"')
    write_plugin(tmp_path / "plugins", "top", dependencies=["base"])
    async with plugin_host(tmp_path / "plugins", app=app, **options) as host:
        yield host


async def post(host: PluginHost, what: str, **headers: str) -> httpx.Response:
    return await host.client.post(f"{AT}/{what}", headers=ADMIN | headers)


async def get(host: PluginHost, what: str = "") -> Any:
    answer = await host.client.get(f"{AT}{what}", headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


# --- the guard ------------------------------------------------------------------------------------


async def test_every_route_asks_the_guard(tmp_path: Path) -> None:
    """Without the guard's consent no route answers, and nothing is changed."""
    async with operated(tmp_path) as host:
        paths = {path: item for path, item in host.app.openapi()["paths"].items() if path.startswith(AT)}
        asked = 0
        for path, item in paths.items():
            for method in item:
                answer = await host.client.request(method, path.replace("{plugin_id}", "top"), json={})
                assert answer.status_code == 403, (method, path)
                asked += 1
        assert asked >= 12
        host.assert_state("top", PluginState.ENABLED)


async def test_before_there_are_plugins(tmp_path: Path) -> None:
    """An app whose manager is not there yet says so."""
    app = FastAPI()
    app.include_router(admin_router(guard=only_admins))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        answer = await client.get("/admin/plugins", headers=ADMIN)
        assert (answer.status_code, answer.json()["detail"][:26]) == (503, "the plugins are not there ")


async def test_hosts_routes_win_over_a_plugins(tmp_path: Path) -> None:
    """A plugin cannot take an admin route over; one with other paths below the same prefix works beside them."""
    write_plugin(tmp_path / "plugins", "thief", '@router.get("")\ndef steal() -> str: return "mine"', prefix="")
    manifest = tmp_path / "plugins" / "thief" / "manifest.py"
    manifest.write_text(manifest.read_text().replace('prefix="/thief"', f'prefix="{AT}"'))
    write_plugin(tmp_path / "plugins", "admin", '@router.get("/status")\ndef status() -> str: return "fine"', prefix="")
    async with operated(tmp_path) as host:
        assert "already served by" in str(host.assert_state("thief", PluginState.FAILED).reason)
        assert len(await get(host)) == 4
        assert (await host.client.get("/admin/status")).json() == "fine"


# --- looking --------------------------------------------------------------------------------------


async def test_plugins_are_shown_with_what_is_wanted(tmp_path: Path) -> None:
    """A plugin shows its state, what is wanted of it, why the two differ, and its version as ETag."""
    write_plugin(tmp_path / "plugins", "wrong", "import nonsense_that_is_not_there")
    write_plugin(tmp_path / "plugins", "off", enabled=False)
    async with operated(tmp_path, disabled=["top"]) as host:
        shown = {each["id"]: each for each in await get(host)}
        assert [(each, shown[each]["state"], shown[each]["desired"]) for each in shown] == [
            ("base", "enabled", {"on": True, "by": "manifest"}),
            ("off", "disabled", {"on": False, "by": "manifest"}),
            ("top", "disabled", {"on": False, "by": "DISABLED_PLUGINS"}),
            ("wrong", "failed", {"on": True, "by": "manifest"}),
        ]
        assert shown["base"]["why"] is None
        assert shown["off"]["why"] is None
        assert "nonsense_that_is_not_there" in shown["wrong"]["why"]
        answer = await host.client.get(f"{AT}/BASE", headers=ADMIN)
        assert answer.headers["etag"] == f'"{answer.json()["record_version"]}"'
        plan = await get(host, "/plan")
        assert plan["order"] == ["base"]
        assert plan["held"]["top"]["by"] == "DISABLED_PLUGINS"


async def test_unknown_plugin_is_a_problem(tmp_path: Path) -> None:
    """In a host without handlers of its own errors are problem details with the error's fields."""
    async with operated(tmp_path) as host:
        answer = await post(host, "bose/enable")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert answer.json() == {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "no plugin 'bose' is installed; did you mean 'base'?",
            "instance": f"{AT}/bose/enable",
            "plugin": "bose",
            "error": {
                "type": "PluginNotFoundError",
                "message": "no plugin 'bose' is installed; did you mean 'base'?",
                "plugin": "bose",
                "similar": "base",
            },
        }


async def test_events_leaks_and_metrics(tmp_path: Path) -> None:
    """Who hears what, what happened, what was left behind, and what was done, as JSON and for Prometheus."""
    code = """
    async def stay() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    async def on_enable() -> None:
        plugin_hooks.register("ear:heard", hear)
        asyncio.create_task(stay())

    def hear(number: int) -> None: ...
    """
    write_plugin(tmp_path / "plugins", "ear", code, events=["ear:heard"])
    async with operated(tmp_path, task_timeout=0.05) as host:
        found = await get(host, "/events")
        assert found["declared"] == {"ear": ["ear:heard"]}
        [mine] = [each for each in found["subscriptions"] if each["plugin"] == "ear"]
        assert (mine["event"], mine["handler"].rpartition(".")[2]) == ("ear:heard", "hear")
        assert {"loaded", "enabled"} <= {each["kind"] for each in found["happenings"] if each["plugin"] == "ear"}
        last = found["happenings"][-1]["number"]
        assert (await host.client.get("/api/v1/base/hi")).json() == "one"
        disabled = (await post(host, "ear/disable")).json()
        assert [leak["kind"] for leak in disabled["report"]["leaks"]] == ["task"]
        [report] = (await get(host, "/leaks"))["leaks"]
        assert (report["plugin"], report["leaks"][0]["kind"]) == ("ear", "task")
        new = (await get(host, f"/events?since={last}"))["happenings"]
        assert [(each["kind"], each["plugin"]) for each in new] == [("disabled", "ear"), ("leaked", "ear")]
        figures = {each["plugin"]: each for each in await get(host, "/metrics")}
        assert (figures["base"]["requests"], figures["base"]["answers"]) == (1, {"2xx": 1})
        text = await host.client.get(f"{AT}/metrics?format=prometheus", headers=ADMIN)
        assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'plugin="base"' in text.text
        for task in [each for each in asyncio.all_tasks() if "stay" in repr(each.get_coro())]:
            task.cancel()
            await asyncio.wait([task])


# --- changing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["enable", "disable", "reload", "retry", "disable?cascade=true"])
async def test_dry_run_changes_nothing(tmp_path: Path, what: str) -> None:
    """A dry run answers with the steps of the change, and leaves records, versions and requests as they were."""
    async with operated(tmp_path) as host:
        before = await get(host)
        for plugin in ("base", "top"):
            answer = await post(host, f"{plugin}/{what}{'&' if '?' in what else '?'}dry_run=true")
            assert (answer.status_code, answer.json()["dry_run"]) == (200, True), answer.text
        assert await get(host) == before


async def test_dry_run_says_who_why_and_in_which_order(tmp_path: Path) -> None:
    """The steps name who else stops or starts, in order, with reasons; and whether it would be refused."""
    async with operated(tmp_path) as host:
        planned = (await post(host, "base/disable?dry_run=true")).json()
        assert [step["id"] for step in planned["change"]["stop"]] == ["top", "base"]
        assert "requires 'base'" in planned["change"]["stop"][0]["why"]
        assert planned["refused"]["dependants"] == ["top"]
        assert (await post(host, "base/disable?dry_run=true&cascade=true")).json()["refused"] is None
        await post(host, "base/disable?cascade=true")
        planned = (await post(host, "base/enable?dry_run=true")).json()
        assert planned["change"]["start"] == [
            {"id": "base", "why": "asked for"},
            {"id": "top", "why": "its dependency 'base' starts"},
        ]


async def test_disable_is_refused_with_the_list_or_cascades(tmp_path: Path) -> None:
    """Others that need the plugin are named in the refusal; with cascade they stop first."""
    async with operated(tmp_path) as host:
        refused = await post(host, "base/disable")
        assert (refused.status_code, refused.json()["error"]["dependants"]) == (409, ["top"])
        assert (await host.client.get("/api/v1/base/hi")).status_code == 200
        done = await post(host, "base/disable?cascade=true")
        assert done.status_code == 200
        assert done.json()["plugin"]["desired"] == {"on": False, "by": "operator"}
        assert (await host.client.get("/api/v1/base/hi")).status_code == 404
        refused = await post(host, "top/enable")
        assert (refused.status_code, refused.json()["error"]["type"]) == (409, "DependencyHeldError")


async def test_reload_and_retry(tmp_path: Path) -> None:
    """Reloading serves the new code, or the old one when the new one is wrong; retrying starts what failed."""
    write_plugin(tmp_path / "plugins", "wrong", "this is no Python")
    async with operated(tmp_path) as host:
        manifest = tmp_path / "plugins" / "base" / "manifest.py"
        good = manifest.read_text()
        manifest.write_text(good.replace("one", "two, longer"))
        assert (await post(host, "base/reload")).json()["change"]["replace"][0]["id"] == "base"
        assert (await host.client.get("/api/v1/base/hi")).json() == "two, longer"
        manifest.write_text("this is no Python")
        refused = await post(host, "base/reload")
        assert (refused.status_code, refused.json()["plugin"]) == (409, "base")
        assert (await host.client.get("/api/v1/base/hi")).json() == "two, longer"
        write_plugin(tmp_path / "plugins", "wrong")
        assert (await post(host, "wrong/retry")).json()["plugin"]["state"] == "enabled"
        host.assert_state("wrong", PluginState.ENABLED)


async def test_state_may_be_discarded(tmp_path: Path) -> None:
    """A reload that is refused for the sake of its state is done with discard_state; the refusal says where."""
    write_plugin(tmp_path / "plugins", "quest", "def on_unload(): raise RuntimeError('broken')")
    async with operated(tmp_path) as host:
        refused = await post(host, "quest/reload")
        assert (refused.status_code, refused.json()["error"]["type"]) == (409, "StateNotHandedOverError")
        assert "raised RuntimeError: broken (" in refused.json()["detail"]
        done = await post(host, "quest/reload?discard_state=true")
        assert (done.status_code, done.json()["plugin"]["generation"]) == (200, 2)


async def test_if_match(tmp_path: Path) -> None:
    """A change happens only while the plugin has one of the versions named; every change makes a new one."""
    async with operated(tmp_path) as host:
        seen = (await host.client.get(f"{AT}/top", headers=ADMIN)).headers["etag"]
        for wrong in ('"1"', f"W/{seen}", '"x", "y"'):
            stale = await post(host, "top/disable", **{"If-Match": wrong})
            assert (stale.status_code, stale.json()["error"]["type"]) == (412, "StateConflictError"), wrong
        assert (await post(host, "top/disable?dry_run=true", **{"If-Match": '"1"'})).status_code == 412
        assert (await post(host, "top/disable", **{"If-Match": "nonsense"})).status_code == 400
        done = await post(host, "top/disable", **{"If-Match": f'"1", {seen}'})
        assert done.status_code == 200
        assert done.headers["etag"] != seen
        assert (await post(host, "top/enable", **{"If-Match": seen})).status_code == 412
        assert (await post(host, "top/enable", **{"If-Match": "*"})).status_code == 200


async def test_of_two_operators_one_wins(tmp_path: Path) -> None:
    """Two who decided on the same version at once: one change is done, the other is refused as stale."""
    async with operated(tmp_path) as host:
        seen = {"If-Match": (await host.client.get(f"{AT}/top", headers=ADMIN)).headers["etag"]}
        answers = await asyncio.gather(post(host, "top/disable", **seen), post(host, "top/reload", **seen))
        assert sorted(each.status_code for each in answers) == [200, 412]


async def test_changes_with_several_workers_are_refused(tmp_path: Path) -> None:
    """Where a change would reach one of several processes it is refused with the way out; looking works."""
    async with operated(tmp_path, allow_live_changes=False) as host:
        refused = await post(host, "top/disable")
        assert refused.status_code == 409
        assert "run with WORKERS=1" in refused.json()["detail"]
        assert len(await get(host)) == 2


async def test_settings(tmp_path: Path) -> None:
    """Settings are shown with schema and sources, changed by a merge patch, and kept when the new ones are wrong."""
    code = """
    from pydantic import BaseModel, SecretStr
    class Settings(BaseModel):
        level: int = 1
        key: SecretStr = SecretStr("hidden")
    settings_model = Settings
    """
    write_plugin(tmp_path / "plugins", "sky", code)
    async with operated(tmp_path) as host:
        answer = await host.client.get(f"{AT}/sky/settings", headers=ADMIN)
        assert answer.json()["schema"]["properties"]["level"]["type"] == "integer"
        assert answer.json()["values"] == {"level": 1, "key": "**********"}
        seen = answer.headers["etag"]

        async def patch(values: Any, query: str = "", **headers: str) -> httpx.Response:
            headers = ADMIN | {"Content-Type": "application/merge-patch+json"} | headers
            return await host.client.patch(f"{AT}/sky/settings{query}", json=values, headers=headers)

        assert (await patch({"level": 5}, "?dry_run=true")).json()["dry_run"] is True
        assert (await get(host, "/sky/settings"))["values"]["level"] == 1
        done = await patch({"level": 5}, **{"If-Match": seen})
        assert (done.status_code, done.json()["settings"]["values"]["level"]) == (200, 5)
        assert (await patch({"level": 6}, **{"If-Match": seen})).status_code == 412
        wrong = await patch({"level": "high"})
        assert (wrong.status_code, wrong.json()["error"]["settings"]) == (422, ["level"])
        assert (await get(host, "/sky/settings"))["sources"] == {"level": "stored settings"}
        assert (await patch({"level": None})).json()["settings"]["values"]["level"] == 1
        assert (await host.client.get(f"{AT}/base/settings", headers=ADMIN)).status_code == 404
        assert (await patch([1])).status_code == 422


# --- the description ------------------------------------------------------------------------------


async def test_answers_are_as_described(tmp_path: Path) -> None:
    """Every operation has a name, a description, a described answer and its problems."""
    async with operated(tmp_path) as host:
        paths = {path: item for path, item in host.app.openapi()["paths"].items() if path.startswith(AT)}
        for path, item in paths.items():
            for method, operation in item.items():
                assert operation["description"], path
                assert operation["responses"]["200"]["content"]["application/json"]["schema"], path
                if "{plugin_id}" in path:
                    assert "application/problem+json" in operation["responses"]["404"]["content"], path
                if method in ("post", "patch"):
                    assert {"409", "412"} <= operation["responses"].keys(), path
