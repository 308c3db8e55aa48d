"""What a plan answers, how it shrinks, and how it reads."""

from __future__ import annotations

import json

from pixsim7_backend.infrastructure.plugins._plan.graph import make_plan
from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate, Plan
from pixsim7_backend.infrastructure.plugins._plan.text import render_graph, render_plan
from pixsim7_backend.infrastructure.plugins.errors import PluginHookError
from pixsim7_backend.infrastructure.plugins.states import PluginState

from .candidates import COMMUNITY, candidate


def family() -> Plan:
    """``a`` ← ``b`` ← ``c``, ``b`` ← ``d`` (off), and ``x`` alone."""
    return make_plan(
        [
            candidate("a", name="A", required=True),
            candidate("b", dependencies=["a>=1"]),
            candidate("c", dependencies=["b", "a"]),
            candidate("d", dependencies=["b"]),
            candidate("x", after=["c"]),
        ],
        disabled={"d"},
        host_version="1.0",
    )


def failure(plugin_id: str) -> PluginHookError:
    """A load that went wrong."""
    return PluginHookError(plugin=plugin_id, hook="on_load", cause=ValueError("no"))


def test_dependants_come_in_load_order_and_held_ones_last() -> None:
    """Direct ones, or all of them; nobody depends on what is not there."""
    plan = family()
    assert plan.dependants_of("a") == ("b", "c")
    assert plan.dependants_of("a", transitive=True) == ("b", "c", "d")
    assert plan.dependants_of("x", transitive=True) == ()
    assert plan.dependants_of("nobody") == plan.dependants_of("nobody", transitive=True) == ()


def test_a_member_of_a_circle_is_not_its_own_dependant() -> None:
    """In a circle everybody depends on everybody else."""
    plan = make_plan(
        [candidate("a", dependencies=["b"]), candidate("b", dependencies=["a"])], disabled=set(), host_version="1"
    )
    assert plan.dependants_of("a", transitive=True) == ("b",)


def test_shutdown_goes_the_other_way() -> None:
    """All in reverse order, or one plugin after everything that runs and needs it."""
    plan = family()
    assert plan.order == ("a", "b", "c", "x")
    assert plan.shutdown_order() == ("x", "c", "b", "a")
    assert plan.shutdown_order("b") == ("c", "b")
    assert plan.shutdown_order("d") == ()


def test_a_failure_in_the_middle_holds_exactly_its_subtree() -> None:
    """The plugin keeps the error, its dependants name it, nobody else moves."""
    before = family()
    after = before.without("b", failure("b"))
    assert after.order == ("a", "x")
    assert after.held["b"].state is PluginState.FAILED
    assert str(after.held["c"]) == (
        "plugin 'c' requires 'b', which is failed: on_load of plugin 'b' raised ValueError: no"
    )
    assert after.held["d"] is before.held["d"]
    assert [problem.plugin for problem in after.problems] == ["b", "c"]
    assert before.order == ("a", "b", "c", "x"), "a plan is a value"


def test_the_root_of_the_trouble_is_handed_down() -> None:
    """Whoever is far away from the failure still reads what failed."""
    plan = make_plan(
        [candidate("a"), candidate("b", dependencies=["a"]), candidate("c", dependencies=["b"])],
        host_version="1",
    ).without("a", failure("a"))
    assert str(plan.held["c"]) == (
        "plugin 'c' requires 'b', which is blocked: on_load of plugin 'a' raised ValueError: no"
    )


def test_a_failure_of_what_does_not_run_changes_nothing() -> None:
    """Held and unknown plugins cannot fail once more."""
    plan = family()
    assert plan.without("d", failure("d")) is plan
    assert plan.without("nobody", failure("nobody")) is plan


def test_a_required_plugin_that_fails_is_listed() -> None:
    """After ``without`` too."""
    plan = family()
    assert plan.required_held == ()
    assert plan.without("a", failure("a")).required_held == ("a",)


def test_to_json_is_json() -> None:
    """Everything in the plan survives the way through JSON."""
    plan = make_plan(
        [
            *family().candidates.values(),
            candidate("a", COMMUNITY, "/community"),
            candidate("l", dependencies=["l"]),
        ],
        disabled={"d", "e"},
        host_version="1.0",
    )
    content = json.loads(json.dumps(plan.to_json()))
    assert content["order"] == ["a", "b", "c", "x"]
    assert content["held"]["d"]["state"] == "disabled"
    assert content["held"]["d"]["type"] == "PluginDisabledError"
    assert content["requires"]["c"] == ["b", "a"]
    assert content["cycles"] == [["l", "l"]]
    assert [each["path"] for each in content["rejected"]] == ["/community/a"]
    assert content["warnings"] == ["DISABLED_PLUGINS names 'e', which is not installed"]
    assert [each["type"] for each in content["problems"]] == ["DuplicatePluginError", "CircularDependencyError"]


def test_the_text_shows_order_reasons_and_warnings() -> None:
    """One line per plugin, further problems below the first."""
    plan = make_plan(
        [
            *family().candidates.values(),
            candidate("a", COMMUNITY, "/community"),
            candidate("m", dependencies=["gone", "lost"]),
            Candidate(id="u", source=candidate("u").source, warnings=("plugin 'u' is odd",)),
        ],
        disabled={"d", "e"},
        host_version="1.0",
    )
    assert (
        render_plan(plan)
        == """\
5 to load:
   1. a  1.0.0
   2. b  1.0.0  requires a
   3. c  1.0.0  requires b, a
   4. u  (manifest not read yet)
   5. x  1.0.0
2 held back:
  disabled d: plugin 'd' is disabled by DISABLED_PLUGINS; to use it, remove it from DISABLED_PLUGINS
  blocked  m: plugin 'm' requires 'gone', which is not installed
           also: plugin 'm' requires 'lost', which is not installed
  rejected /community/a: plugin 'a' is found twice: /community/a and /plugins/a; remove one, or change its id
  warning  DISABLED_PLUGINS names 'e', which is not installed
  warning  plugin 'u' is odd"""
    )
    assert render_plan(make_plan([], host_version="1")) == "0 to load"


def test_the_graph_as_text() -> None:
    """Every plugin with what it requires; held ones with their state."""
    assert render_graph(family()) == "a\nb <- a\nc <- b, a\nx\nd (disabled) <- b"
