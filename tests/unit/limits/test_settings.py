"""What holds for which plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixsim7_backend.infrastructure.plugins import LimitSettings, PluginManifest, PluginRecord, PluginSource, Rate
from pixsim7_backend.infrastructure.plugins.records import SourceRank

TRUSTED, COMMUNITY = SourceRank.FIRST_PARTY, SourceRank.COMMUNITY


def record(rank: SourceRank, rate_limit: str = "", plugin: str = "dice") -> PluginRecord:
    source = PluginSource(folder=plugin, path=Path(plugin), package=plugin, rank=rank)
    return PluginRecord(id=plugin, source=source, manifest=PluginManifest(id=plugin, rate_limit=rate_limit))


@pytest.mark.parametrize(
    ("rank", "claimed", "settings", "expected"),
    [
        (TRUSTED, "", LimitSettings(), None),
        (TRUSTED, "5/second", LimitSettings(), "5/second"),
        (TRUSTED, "5/second", LimitSettings(community_rate=Rate(1, 60)), "5/second"),
        (TRUSTED, "5/second", LimitSettings(rates={"dice": None}), None),
        (TRUSTED, "5/second", LimitSettings(rates={"dice": Rate(9, 1)}), "9/second"),
        (TRUSTED, "5/second", LimitSettings(rates={"other": Rate(9, 1)}), "5/second"),
        (COMMUNITY, "", LimitSettings(), None),
        (COMMUNITY, "", LimitSettings(community_rate=Rate(60, 60)), "60/minute"),
        (COMMUNITY, "5/second", LimitSettings(community_rate=Rate(60, 60)), "60/minute"),
        (COMMUNITY, "5/minute", LimitSettings(community_rate=Rate(60, 60)), "5/minute"),
        (COMMUNITY, "5/minute", LimitSettings(community_rate=Rate(60, 60), rates={"dice": Rate(9, 1)}), "9/second"),
        (COMMUNITY, "5/minute", LimitSettings(community_rate=Rate(60, 60), rates={"dice": None}), None),
    ],
)
def test_the_operator_has_the_last_word(
    rank: SourceRank, claimed: str, settings: LimitSettings, expected: str | None
) -> None:
    """The setting for the plugin, else its manifest; a community plugin gets at most what is set for them."""
    rate = settings.rate_of(record(rank, claimed))
    assert (str(rate) if rate else None) == expected


def test_concurrency_is_limited_for_community_plugins() -> None:
    """Unless something is set for the plugin, trusted ones serve any number, others 64 at once."""
    settings = LimitSettings(concurrency={"few": 2, "many": None})
    assert settings.concurrency_of(record(TRUSTED)) is None
    assert settings.concurrency_of(record(COMMUNITY)) == 64
    for rank in (TRUSTED, COMMUNITY):
        assert settings.concurrency_of(record(rank, plugin="few")) == 2
        assert settings.concurrency_of(record(rank, plugin="many")) is None


def test_a_plugin_whose_manifest_is_not_known_has_no_rate() -> None:
    """Nothing is claimed before the code has been imported."""
    source = PluginSource(folder="dice", path=Path("dice"), package="dice")
    assert LimitSettings().rate_of(PluginRecord(id="dice", source=source)) is None
