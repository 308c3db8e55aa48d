"""The plan: what loads, in which order, and what is held back and why."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pixsim7_backend.infrastructure.plugins._plan.graph import make_plan, nearest_name
from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate, Plan
from pixsim7_backend.infrastructure.plugins.errors import (
    CircularDependencyError,
    DependencyHeldError,
    DependencyVersionError,
    DuplicatePluginError,
    HostVersionError,
    MissingDependencyError,
    MissingManifestError,
    PluginConflictError,
    PluginDisabledError,
    ResourceMissingError,
)
from pixsim7_backend.infrastructure.plugins.records import PluginSource
from pixsim7_backend.infrastructure.plugins.states import PluginState

from .candidates import COMMUNITY, ENTRY_POINT, broken, candidate


def plan(
    *candidates: Candidate,
    disabled: frozenset[str] | set[str] = frozenset(),
    resources: Mapping[str, str] | None = None,
    host: str = "1.0.0",
) -> Plan:
    """Plan with the platform at version 1.0.0 and all resources there."""
    return make_plan(candidates, disabled=disabled, resource_problems=resources or {}, host_version=host)


def texts(found: Plan) -> dict[str, str]:
    """Return id → first reason as text."""
    return {plugin_id: str(error) for plugin_id, error in found.held.items()}


# --- order --------------------------------------------------------------------------------------


def test_dependencies_go_first_and_ties_go_by_id() -> None:
    """The order is topological; what could go at the same time goes by id."""
    found = plan(candidate("b"), candidate("a", dependencies=["z"]), candidate("z"), candidate("c"))
    assert found.order == ("b", "c", "z", "a")
    assert not found.held
    assert not found.problems


def test_nothing_is_a_plan_too() -> None:
    """No candidates: an empty plan."""
    assert plan().order == ()


def test_any_spelling_of_an_id_is_the_same_plugin() -> None:
    """Underscores and capitals in ``dependencies`` and ``after`` mean the plugin with hyphens."""
    found = plan(
        candidate("a", dependencies=["Game_Npcs"], after=["game_worlds"]),
        candidate("game-npcs"),
        candidate("game-worlds"),
    )
    assert found.order == ("game-npcs", "game-worlds", "a")


def test_after_orders_without_requiring() -> None:
    """``after`` goes first where it is there, and may be absent, disabled or broken."""
    found = plan(
        candidate("a", after=["z", "absent", "off", "bad"]),
        candidate("z"),
        candidate("off", enabled=False),
        broken("bad"),
    )
    assert found.order == ("z", "a")
    assert not found.warnings


def test_a_circle_through_after_drops_the_after_with_a_warning() -> None:
    """A circle that only ``after`` closes blocks nobody."""
    found = plan(candidate("a", after=["b"]), candidate("b", dependencies=["a"]))
    assert found.order == ("a", "b")
    assert found.warnings == (
        (
            "plugin 'a' is not loaded after 'b' as its manifest says (`after`), because 'b' has to be loaded after it;"
            " remove one of the two"
        ),
    )


def test_of_two_that_want_to_be_last_the_first_by_id_is() -> None:
    """Of a circle of ``after`` alone only as much is dropped as closes it."""
    found = plan(candidate("a", after=["b"]), candidate("b", after=["a"]), candidate("c", after=["b"]))
    assert found.order == ("b", "a", "c")
    assert len(found.warnings) == 1


def test_after_itself_is_dropped() -> None:
    """A plugin that goes after itself is loaded, with a warning."""
    found = plan(candidate("a", after=["a"]))
    assert found.order == ("a",)
    assert len(found.warnings) == 1


# --- requirements -------------------------------------------------------------------------------


def test_a_missing_dependency_blocks_with_the_nearest_name() -> None:
    """The error names both and what was probably meant."""
    found = plan(candidate("a", dependencies=["game-sesions"]), candidate("game-sessions"))
    assert found.order == ("game-sessions",)
    assert texts(found) == {
        "a": "plugin 'a' requires 'game-sesions', which is not installed; did you mean 'game-sessions'?"
    }
    assert found.held["a"].state is PluginState.BLOCKED
    assert isinstance(found.held["a"], MissingDependencyError)


def test_all_problems_of_a_plugin_are_found_at_once() -> None:
    """Two missing dependencies, the platform, both resources and an old dependency are six problems."""
    found = plan(
        candidate(
            "a",
            dependencies=["x1", "x2", "old>=2"],
            requires_db=True,
            requires_redis=True,
            requires_host=">=2",
        ),
        candidate("old"),
        resources={"db": "set DATABASE_URL", "redis": "set REDIS_URL"},
    )
    assert [type(problem) for problem in found.problems] == [
        HostVersionError,
        ResourceMissingError,
        ResourceMissingError,
        MissingDependencyError,
        MissingDependencyError,
        DependencyVersionError,
    ]


@pytest.mark.parametrize(
    ("wanted", "installed", "is_satisfied"),
    [
        (">=1.2,<2", "1.2.0", True),
        (">=1.2,<2", "1.1.9", False),
        (">=1.2,<2", "2.0.0", False),
        ("==1.*", "1.9", True),
        ("~=1.4", "1.5", True),
        ("~=1.4", "2.0", False),
        (">=1.0", "1.1rc1", True),
        ("!=1.3", "1.3", False),
    ],
)
def test_versions_are_compared_as_pep_440_says(wanted: str, installed: str, is_satisfied: bool) -> None:
    """A dependency outside the range blocks the dependant, and only it."""
    found = plan(candidate("a", dependencies=[f"b{wanted}"]), candidate("b", version=installed))
    assert found.order == (("b", "a") if is_satisfied else ("b",))


def test_a_wrong_version_names_range_and_version() -> None:
    """The error says what is required and what is there."""
    found = plan(candidate("a", dependencies=["b>=2"]), candidate("b"))
    assert texts(found) == {"a": "plugin 'a' requires 'b>=2', but 'b' is version 1.0.0"}


def test_several_ranges_for_one_dependency_all_count() -> None:
    """A dependency named twice must satisfy both ranges."""
    found = plan(candidate("a", dependencies=["b>=1", "b<1"]), candidate("b"))
    assert [str(problem) for problem in found.problems] == ["plugin 'a' requires 'b<1', but 'b' is version 1.0.0"]


def test_only_the_affected_subtree_is_held_and_each_names_its_culprit() -> None:
    """A dependant names its dependency and the root of the trouble; others load."""
    found = plan(
        candidate("a", dependencies=["gone"]),
        candidate("b", dependencies=["a"]),
        candidate("c", dependencies=["b"]),
        candidate("d"),
    )
    assert found.order == ("d",)
    assert texts(found) == {
        "a": "plugin 'a' requires 'gone', which is not installed",
        "b": "plugin 'b' requires 'a', which is blocked: plugin 'a' requires 'gone', which is not installed",
        "c": "plugin 'c' requires 'b', which is blocked: plugin 'a' requires 'gone', which is not installed",
    }
    assert isinstance(found.held["c"], DependencyHeldError)


def test_a_failed_dependency_blocks_its_dependants() -> None:
    """A folder without manifest is failed; what requires it says so."""
    found = plan(broken("bad"), candidate("a", dependencies=["bad"]))
    assert isinstance(found.held["bad"], MissingManifestError)
    assert found.held["bad"].state is PluginState.FAILED
    assert texts(found)["a"].startswith("plugin 'a' requires 'bad', which is failed: /plugins/bad has no manifest.py")


# --- disabled -----------------------------------------------------------------------------------


def test_disabled_by_the_manifest() -> None:
    """``enabled=False`` holds the plugin as disabled, which is no problem, and blocks dependants by name."""
    found = plan(candidate("off", enabled=False, dependencies=["gone"]), candidate("a", dependencies=["off"]))
    assert isinstance(found.held["off"], PluginDisabledError)
    assert found.held["off"].state is PluginState.DISABLED
    assert found.problems == (found.held["a"],)
    assert texts(found) == {
        "off": "plugin 'off' is disabled by manifest; to use it, set `enabled=True` in its manifest",
        "a": "plugin 'a' requires 'off', which is disabled: plugin 'off' is disabled by manifest;"
        " to use it, set `enabled=True` in its manifest",
    }


@pytest.mark.parametrize("spelling", ["beta-api", "beta_api", " Beta_API "])
def test_disabled_by_the_operator_in_any_spelling(spelling: str) -> None:
    """``DISABLED_PLUGINS`` takes hyphens or underscores, capitals and blanks."""
    found = plan(candidate("beta-api"), disabled={spelling})
    assert texts(found) == {
        "beta-api": "plugin 'beta-api' is disabled by DISABLED_PLUGINS; to use it, remove it from DISABLED_PLUGINS"
    }
    assert not found.warnings


def test_a_broken_plugin_can_be_switched_off() -> None:
    """What is switched off has no problems, whatever its manifest looks like."""
    found = plan(broken("bad"), disabled={"bad"})
    assert found.held["bad"].state is PluginState.DISABLED
    assert not found.problems


def test_an_unknown_name_in_disabled_plugins_is_a_warning() -> None:
    """It names the nearest plugin, where one is near."""
    found = plan(candidate("game-stealth"), disabled={"game-stelth", "zzz"})
    assert found.warnings == (
        "DISABLED_PLUGINS names 'game-stelth', which is not installed; did you mean 'game-stealth'?",
        "DISABLED_PLUGINS names 'zzz', which is not installed",
    )


# --- circles ------------------------------------------------------------------------------------


def test_a_circle_is_told_from_its_smallest_id() -> None:
    """The guide's line; every member is blocked, and dependants of members by name."""
    found = plan(
        candidate("game-npcs", dependencies=["game-combat"]),
        candidate("game-combat", dependencies=["game-npcs"]),
        candidate("game-quests", dependencies=["game-npcs"]),
        candidate("free"),
    )
    line = "Circular dependency detected: game-combat -> game-npcs -> game-combat"
    assert found.order == ("free",)
    assert texts(found) == {
        "game-combat": line,
        "game-npcs": line,
        "game-quests": f"plugin 'game-quests' requires 'game-npcs', which is blocked: {line}",
    }
    assert found.cycles == (("game-combat", "game-npcs", "game-combat"),)
    assert all(error.state is PluginState.BLOCKED for error in found.held.values())


def test_the_path_follows_the_requirements() -> None:
    """In ``a -> c -> b -> a`` each id requires the next."""
    found = plan(
        candidate("a", dependencies=["c"]), candidate("c", dependencies=["b"]), candidate("b", dependencies=["a"])
    )
    assert found.cycles == (("a", "c", "b", "a"),)


def test_a_plugin_that_requires_itself_is_a_circle() -> None:
    """The shortest circle has one member."""
    assert texts(plan(candidate("a", dependencies=["a"]))) == {"a": "Circular dependency detected: a -> a"}


def test_independent_circles_are_each_told() -> None:
    """Two circles are two lines, and so are two that share a member."""
    found = plan(
        candidate("a", dependencies=["b"]),
        candidate("b", dependencies=["a"]),
        candidate("x", dependencies=["y", "z"]),
        candidate("y", dependencies=["x"]),
        candidate("z", dependencies=["x"]),
    )
    assert found.cycles == (("a", "b", "a"), ("x", "y", "x"), ("x", "z", "x"))
    assert set(found.held) == {"a", "b", "x", "y", "z"}


def test_a_circle_with_a_disabled_member_is_none() -> None:
    """Switching a member off breaks the circle; the others are blocked by its name."""
    found = plan(candidate("a", dependencies=["b"]), candidate("b", dependencies=["a"]), disabled={"b"})
    assert not found.cycles
    assert isinstance(found.held["a"], DependencyHeldError)


def test_a_member_that_also_misses_something_has_both_problems() -> None:
    """The circle is the first reason, the rest follows."""
    found = plan(candidate("a", dependencies=["b", "gone"]), candidate("b", dependencies=["a"]))
    assert isinstance(found.held["a"], CircularDependencyError)
    assert [type(problem) for problem in found.problems if problem.plugin == "a"] == [
        CircularDependencyError,
        MissingDependencyError,
    ]


# --- conflicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("declaring", ["a", "b"])
def test_the_later_of_two_that_conflict_is_blocked(declaring: str) -> None:
    """It does not matter on which side it is declared."""
    found = plan(
        candidate("a", conflicts=["b"] if declaring == "a" else []),
        candidate("b", conflicts=["a"] if declaring == "b" else []),
        candidate("c", dependencies=["b"]),
    )
    assert found.order == ("a",)
    assert texts(found)["b"] == (
        f"plugin 'b' cannot run beside 'a' (`conflicts` of '{declaring}'); disable one of the two"
    )
    assert isinstance(found.held["c"], DependencyHeldError)


def test_a_conflict_may_be_with_some_versions_only() -> None:
    """Outside the range there is no conflict."""
    assert plan(candidate("a", conflicts=["b<1"]), candidate("b")).order == ("a", "b")
    assert plan(candidate("a", conflicts=["b>=1"]), candidate("b")).order == ("a",)


def test_what_does_not_run_conflicts_with_nobody() -> None:
    """Disabled, blocked and failed plugins, and those kept out by a conflict, keep nobody out."""
    assert plan(candidate("a", conflicts=["b"], enabled=False), candidate("b")).order == ("b",)
    assert plan(candidate("a", conflicts=["b"], dependencies=["gone"]), candidate("b")).order == ("b",)
    chain = [candidate("a", conflicts=["b"]), candidate("b", conflicts=["c"]), candidate("c")]
    assert plan(*chain).order == ("a", "c")
    assert plan(candidate("a", conflicts=["a"])).order == ("a",)


def test_load_order_decides_before_the_id() -> None:
    """A dependency is never kept out by what requires it."""
    found = plan(candidate("a", dependencies=["b"], conflicts=["b"]), candidate("b"))
    assert found.order == ("b",)
    assert isinstance(found.held["a"], PluginConflictError)


def test_a_less_trusted_plugin_cannot_push_out_a_trusted_one() -> None:
    """Of two that conflict the less trusted is blocked, wherever it stands in the alphabet."""
    found = plan(candidate("aaa", COMMUNITY, conflicts=["auth"]), candidate("auth"))
    assert found.order == ("auth",)
    leaning = plan(
        candidate("a", conflicts=["z"], dependencies=["lib"]), candidate("lib", COMMUNITY), candidate("z", ENTRY_POINT)
    )
    assert leaning.order == ("lib", "z")


# --- resources and the platform -----------------------------------------------------------------


def test_a_missing_resource_blocks_with_the_setting_to_add() -> None:
    """The text of the resource check is part of the reason."""
    found = plan(
        candidate("a", requires_db=True), candidate("b", requires_redis=True), resources={"db": "set DATABASE_URL"}
    )
    assert texts(found) == {"a": "plugin 'a' requires db: set DATABASE_URL"}
    assert found.order == ("b",)


def test_the_platform_must_be_in_the_required_range() -> None:
    """``requires_host`` is a PEP 440 range; pre-releases of the platform count."""
    assert plan(candidate("a", requires_host=">=1.0,<2"), host="1.1.dev3").order == ("a",)
    found = plan(candidate("a", requires_host=">=2"))
    assert texts(found)["a"].startswith("plugin 'a' requires platform >=2, but 1.0.0 is installed")


# --- ids claimed twice --------------------------------------------------------------------------


def test_the_less_trusted_of_two_loses_and_names_the_other() -> None:
    """The trusted one runs; the other is rejected with both paths."""
    found = plan(candidate("a", COMMUNITY, "/community"), candidate("a"), candidate("a", ENTRY_POINT, "/site"))
    assert found.order == ("a",)
    assert found.candidates["a"].source.path.as_posix() == "/plugins/a"
    assert [str(reason) for _, reason in found.rejected] == [
        "plugin 'a' is found twice: /site/a and /plugins/a; remove one, or change its id",
        "plugin 'a' is found twice: /community/a and /plugins/a; remove one, or change its id",
    ]
    assert len(found.problems) == 2


def test_of_equal_rank_both_fail() -> None:
    """Nobody can tell which one is meant."""
    found = plan(candidate("a"), candidate("a", directory="/more"), candidate("b", dependencies=["a"]))
    assert found.order == ()
    assert isinstance(found.held["a"], DuplicatePluginError)
    assert found.held["a"].state is PluginState.FAILED
    assert [str(error) for error in (found.held["a"], *(reason for _, reason in found.rejected))] == [
        "plugin 'a' is found twice: /more/a and /plugins/a; remove one, or change its id",
        "plugin 'a' is found twice: /plugins/a and /more/a; remove one, or change its id",
    ]


def test_a_broken_folder_does_not_take_the_id_of_a_good_one() -> None:
    """A folder that only looks as if it had the id steps back with its own error."""
    found = plan(broken("a", directory="/other"), candidate("a"))
    assert found.order == ("a",)
    assert [type(reason) for _, reason in found.rejected] == [MissingManifestError]


def test_a_less_trusted_plugin_cannot_take_the_place_of_a_broken_trusted_one() -> None:
    """The id stays with the trusted source even while that is broken."""
    found = plan(broken("auth"), candidate("auth", COMMUNITY))
    assert found.order == ()
    assert isinstance(found.held["auth"], MissingManifestError)


def test_a_copy_that_is_switched_off_does_not_count_as_a_second_one() -> None:
    """The enabled one of two keeps the id; two that are off are just disabled."""
    off = candidate("a", directory="/copy", enabled=False)
    assert plan(off, candidate("a")).order == ("a",)
    assert plan(off, candidate("a", enabled=False)).held["a"].state is PluginState.DISABLED


# --- required -----------------------------------------------------------------------------------


def test_required_plugins_that_cannot_run_are_listed() -> None:
    """Trusted ones only, and not those that somebody switched off: of them the plan warns."""
    found = plan(
        candidate("a", required=True, dependencies=["gone"]),
        candidate("b", COMMUNITY, required=True, dependencies=["gone"]),
        candidate("c", required=True),
        candidate("d", required=True),
        disabled={"d"},
    )
    assert found.required_held == ("a",)
    assert found.warnings == (
        (
            "plugin 'd' is required, but plugin 'd' is disabled by DISABLED_PLUGINS;"
            " to use it, remove it from DISABLED_PLUGINS"
        ),
    )


# --- the rest -----------------------------------------------------------------------------------


def test_a_manifest_that_is_not_known_yet_requires_nothing() -> None:
    """Until it is imported, a plugin stands alone, and any version of it will do."""
    unknown = Candidate(id="u", source=PluginSource(folder="u", path=candidate("u").source.path, package="u"))
    found = plan(unknown, candidate("a", dependencies=["u>=9"]))
    assert found.order == ("u", "a")


def test_nearest_name() -> None:
    """The nearest name is one that is near."""
    assert nearest_name("game-sesion", ["game-sessions", "game-scenes"]) == "game-sessions"
    assert nearest_name("zzz", ["game-sessions"]) == ""


def test_a_thousand_plugins_are_planned_in_a_blink() -> None:
    """Chains, circles and missing names end long before the time limit of a test; a quadratic step would not."""
    shapes = {
        "deep": [
            candidate(f"p-{i}", dependencies=[f"p-{j}" for j in {i - 1, i // 2} if 0 <= j < i]) for i in range(1000)
        ],
        "ring": [candidate(f"p-{i}", dependencies=[f"p-{(i + 1) % 1000}"]) for i in range(1000)],
        "lost": [candidate(f"p-{i}", dependencies=[f"gone-{i}"]) for i in range(1000)],
        "after": [candidate(f"p-{i}", after=[f"p-{i + 1}", "p-0"]) for i in range(1000)],
    }
    sizes = {name: len(plan(*candidates).order) for name, candidates in shapes.items()}
    assert sizes == {"deep": 1000, "ring": 0, "lost": 0, "after": 1000}
