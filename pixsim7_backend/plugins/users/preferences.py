"""A user's preferences in the database: any JSON object, changed by merge patch. Callers commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from pixsim7_backend.merge_patch import merge_patch
from pixsim7_backend.problems import UnprocessableContent
from pixsim7_backend.storable import find_json_problem

from .models import UserPreferences
from .rows import lock_row

_LARGEST = 65_536
_DEEPEST = 16


def read(db: Session, user_id: int) -> dict[str, Any]:
    """Return the preferences, empty where none were ever set."""
    row = db.get(UserPreferences, user_id)
    return {} if row is None else row.preferences


def patch(db: Session, user_id: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``changes`` in (RFC 7386) and return the outcome; parallel patches are all kept.

    Raises:
        UnprocessableContent: the outcome is more than preferences may hold.
    """
    row = lock_row(db, UserPreferences, user_id, preferences={})
    merged = merge_patch(row.preferences, changes)
    problem = find_json_problem(merged, max_bytes=_LARGEST, max_depth=_DEEPEST)
    if problem:
        raise UnprocessableContent(f"the preferences would be too large: {problem}")
    row.preferences = merged
    db.flush()
    return row.preferences
