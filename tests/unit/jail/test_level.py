"""What is said about confinement."""

from __future__ import annotations

from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementLevel, ConfinementReport

REPORT = ConfinementReport(
    level=ConfinementLevel.CONFINED,
    landlock_abi=6,
    seccomp=True,
    own_uid=True,
    namespaces=("mount",),
    notes=("no namespaces (unshare: Operation not permitted): plugins can find out which files exist",),
)


def test_levels_are_ordered() -> None:
    """Each level is above the one that has less."""
    assert sorted(ConfinementLevel) == [
        ConfinementLevel.NONE,
        ConfinementLevel.LIMITS,
        ConfinementLevel.LANDLOCK,
        ConfinementLevel.CONFINED,
        ConfinementLevel.NAMESPACED,
    ]
    assert all(level.summary for level in ConfinementLevel)


def test_a_report_survives_json() -> None:
    """What becomes JSON comes back as it was."""
    assert ConfinementReport.from_json(REPORT.to_json()) == REPORT
    assert REPORT.to_json()["level"] == "confined"


def test_a_report_reads_well() -> None:
    """People are told the level, its parts, and what is missing."""
    first, second = str(REPORT).splitlines()
    assert first == (
        "confined: resource limits, Landlock and a filter of system calls; Landlock ABI 6; own user per plugin; "
        "namespaces: mount"
    )
    assert second == ("- no namespaces (unshare: Operation not permitted): plugins can find out which files exist")
