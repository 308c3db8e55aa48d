from __future__ import annotations

import pytest

from pixsim7_backend.conditional import IfMatchCondition, etag
from pixsim7_backend.problems import BadRequest, PreconditionFailed


@pytest.mark.parametrize(
    "lines",
    [None, ["*"], [" * "], ['"3"'], ['"1", "3"'], ['"1"', '"3"'], [', ,"3",'], ['W/"3", "3"'], ["3"], ['"a,b", "3"']],
)
def test_admits_the_current_version(lines: list[str] | None) -> None:
    """No header, a star, and any list with the strong tag of the current version let the write through."""
    IfMatchCondition(lines).require(3)


@pytest.mark.parametrize("lines", [['"2"'], ['W/"3"'], ['"1", "2"'], ['"03"'], ["2"], ['""'], ['"a,3"'], ["9" * 50]])
def test_refuses_any_other_version(lines: list[str]) -> None:
    """A stale, weak or foreign tag is a 412 that carries the current tag."""
    with pytest.raises(PreconditionFailed) as caught:
        IfMatchCondition(lines).require(3)
    assert caught.value.headers == {"ETag": etag(3)}
    assert caught.value.members == {"version": 3}


@pytest.mark.parametrize("lines", [[""], [","], ['"3'], ["abc"], ['"3" "4"'], ["W/3"], ['"3", *'], ['"a"b"']])
def test_a_malformed_header_is_400(lines: list[str]) -> None:
    """What is not a list of entity tags is refused rather than ignored: the write would be unconditional."""
    with pytest.raises(BadRequest):
        IfMatchCondition(lines)
