"""``kill -9`` at every step of a change: the next start serves what was stored, and nothing contradicts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.scenes import ROUNDS, write_chain, write_everything
from tests.faults.zygote import End, Start, Zygote

CHANGES: dict[str, tuple[list[tuple[str, ...]], tuple[str, ...], str]] = {
    "enable": ([("cascade", "base")], ("enable", "base"), "beside"),
    "disable": ([], ("cascade", "base"), "beside"),
    "reload": ([], ("reload", "base"), "beside"),
    "reload-stop-first": ([], ("reload", "base"), "stop-first"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_server_killed_at_any_step_comes_up_with_what_was_stored(name: str, zygote: Zygote, tmp_path: Path) -> None:
    """Before the wish is stored it is as if nothing had been asked; from then on the next start completes it."""
    before, change, replace = CHANGES[name]
    plugins, data, model = tmp_path / "now" / "plugins", tmp_path / "now" / "data", tmp_path / "model"

    def run(*changes: tuple[str, ...], die_at: str = "") -> End:
        start = Start(
            plugins=str(plugins), data=str(data), changes=changes, die_at=die_at, options={"task_timeout": 0.5}
        )
        return zygote.run(start)

    plugins.mkdir(parents=True)
    write_chain(plugins)
    write_everything(plugins, "base", replace=replace)
    wanted_before = run(*before).said["switched"]
    shutil.copytree(tmp_path / "now", model)
    write = [("write", "base", "2", replace)] if change[0] == "reload" else []
    steps = list(dict.fromkeys(run(*write, change).said["reached"]))
    assert len(steps) > 2
    for step in steps if ROUNDS > 1 else steps[:: max(1, len(steps) // 3)]:
        shutil.rmtree(tmp_path / "now")
        shutil.copytree(model, tmp_path / "now")
        assert run(*write, change, die_at=step).signal == 9, step
        end = run()
        assert end.status == 0, f"the server did not come up after {step}"
        assert end.said["contradictions"] == [], step
        is_on = change[0] == "enable"
        wanted = wanted_before if change[0] == "reload" else {**wanted_before, "base": is_on}
        assert end.said["switched"] == wanted, step
        _assert_as_wanted(end.states, is_on=wanted.get("base", True))
        versions = {each: record["version"] for each, record in end.said["records"].items()}
        assert versions["base"] == ("2.0.0" if write else "1.0.0"), step


def _assert_as_wanted(states: dict[str, str], *, is_on: bool) -> None:
    """What was switched off is off, what needs it is blocked, and everything else runs."""
    needing = "enabled" if is_on else "blocked"
    assert states == {"base": "enabled" if is_on else "disabled", "middle": needing, "top": needing, "other": "enabled"}
