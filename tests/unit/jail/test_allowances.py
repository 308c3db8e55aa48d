"""What operators write about what confined plugins may use."""

from __future__ import annotations

import re

import pytest

from pixsim7_backend.infrastructure.plugins._jail.allowances import Allowances

DEFAULT = (
    "memory=256MiB,threads=64,open-files=64,file-size=16MiB,scratch=64MiB,scratch-entries=10000,"
    "request-size=16MiB,response-size=64MiB,answer-time=30,idle-time=60,total-time=3600"
)


def test_the_defaults_can_be_written_down() -> None:
    """They are shown as they could be set."""
    assert str(Allowances()) == DEFAULT
    assert Allowances.parse(DEFAULT) == Allowances.parse("") == Allowances()


@pytest.mark.parametrize(
    "wanted",
    [
        "memory=512MiB, census.memory = 1 gib,Census.open_files=100,total-time=1.5,",
        {"MEMORY": 536870912, "census": {"memory": "1GiB", "open-files": 100}, "total_time": 1.5},
    ],
)
def test_single_plugins_have_what_is_said_of_them_and_of_all(wanted: object) -> None:
    """As text or as a mapping, names in any spelling; what is not said is as it was."""
    found = Allowances.parse(wanted)  # type: ignore[arg-type]  # both kinds
    assert str(found.common) == DEFAULT.replace("256MiB", "512MiB").replace("3600", "1.5")
    assert found.of("other") is found.common
    assert str(found.of("census")) == (
        DEFAULT.replace("256MiB", "1GiB").replace("open-files=64", "open-files=100").replace("3600", "1.5")
    )


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ("memory", "'memory' is not a list of limits, each with = and its value"),
        (["memory"], "is not a list of limits"),
        ("colour=red", "'colour' is no limit; there are memory, threads, open-files, file-size, scratch, "),
        ("memory=lots", "memory=lots is not a size in bytes, KiB, MiB or GiB, like 256MiB"),
        ("memory=-1", "memory=-1 is not a size"),
        ("memory=1MiB", "memory=1MiB is too little: at least 96MiB is needed"),
        ("threads=2.5", "threads=2.5 is not a whole number"),
        ("idle-time=nan", "idle-time=nan is not a number of seconds"),
        ("idle-time=0", "idle-time=0 is too little: at least 0.001 is needed"),
        ("census.threads=0", "for plugin 'census', threads=0 is too little: at least 4 is needed"),
        ({"census": {"colour": "red"}}, "for plugin 'census', 'colour' is no limit"),
    ],
)
def test_what_is_no_limit(wanted: object, problem: str) -> None:
    """The text says which one, whose, and what it could be."""
    with pytest.raises(ValueError, match=re.escape(problem)):
        Allowances.parse(wanted)  # type: ignore[arg-type]  # nor anything else
