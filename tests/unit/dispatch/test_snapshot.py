"""A snapshot made from its predecessor names the same mounts as one made from nothing."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._dispatch import PluginMount
from pixsim7_backend.infrastructure.plugins._dispatch.snapshot import Snapshot
from tests.integration.compat.twins import PluginSpec, mount_of

APP = FastAPI()
LAYOUTS = [("/a",), ("/a", "/b/{x}"), ("/{x}",), ("/a/b", "/a/c", "/d"), ("/b/",), ("/a/{x}/c",), ()]
PATHS = ["/a", "/a/b", "/a/b/c", "/b", "/b/", "/b/1", "/d", "/e", "", "/", "/a\n", "/b/\n", "*"]


def mount(plugin: str, layout: tuple[str, ...]) -> PluginMount:
    router = APIRouter()
    for path in layout:
        router.add_api_route(path, lambda: None)
    return mount_of(APP, PluginSpec(plugin, lambda: [router], ""))


POOL = {(plugin, layout): mount(plugin, layout) for plugin in "uvwxyz" for layout in LAYOUTS}
steps = st.lists(
    st.dictionaries(st.sampled_from("uvwxyz"), st.sampled_from(LAYOUTS), max_size=6), min_size=1, max_size=5
)


@given(steps)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_incremental_is_complete(history: list[dict[str, tuple[str, ...]]]) -> None:
    """Whatever came before, the candidates for a path and their order depend on what is published only."""
    snapshot = Snapshot()
    for step in history:
        mounts = {plugin: POOL[plugin, layout] for plugin, layout in step.items()}
        snapshot = snapshot.with_mounts(mounts)
        fresh = Snapshot().with_mounts(mounts)
        assert list(snapshot.mounts) == list(fresh.mounts)
        for path in PATHS:
            assert list(snapshot.candidates(path)) == list(fresh.candidates(path))


def test_candidates() -> None:
    """Plugins are asked by their static prefixes, those without one always, in their order."""
    mounts = {name: POOL[name, layout] for name, layout in zip("uvwx", LAYOUTS, strict=False)}
    snapshot = Snapshot().with_mounts(mounts)
    named = {path: "".join(mount.plugin_id for mount in snapshot.candidates(path)) for path in PATHS}
    assert named["/a"] == "uvw"
    assert named["/a/b/c"] == "uvwx"
    assert named["/b/1"] == "vw"
    assert named["/e"] == named["*"] == named[""] == "w"
    assert named["/a\n"] == "uvw"
