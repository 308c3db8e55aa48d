"""The guide's own ``main.py`` over the plugins that come with the distribution: nothing else is needed."""

from __future__ import annotations

from pathlib import Path

from tests.integration.guide import block
from tests.integration.guide.site import Site, main_text, serve


def test_the_guides_lifespan_runs_the_backends_plugins(tmp_path: Path) -> None:
    """Found beside the installed package, their tables made on the embedded database: a player can register."""
    (tmp_path / "main.py").write_text(main_text(block("After (Dynamic)")), encoding="utf-8")
    with serve(Site(tmp_path)) as server:
        assert set(server.states().values()) == {"enabled"}
        account = {"email": "ada@example.org", "username": "ada", "password": "correct horse battery"}
        answer = server.client.post("/api/v1/auth/register", json=account)
        assert answer.status_code == 201, answer.text
        token = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert server.client.post("/api/v1/game/worlds", json={"name": "Mine"}, headers=token).status_code == 201
        assert server.client.get("/api/v1/game/worlds", headers=token).json()["total"] == 1
        assert server.client.post("/api/v1/game/stealth/pickpocket", content="{...}").status_code == 401
