"""Column types that mean the same in both databases."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from .errors import UnstorableValueError


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: aware in Python, always in UTC, sorted as time in both databases.

    Raises:
        UnstorableValueError: a naive datetime is given; nobody knows what it means.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return the time as the database keeps it: UTC, and naive in SQLite, which knows no zones."""
        if value is None:
            return None
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise UnstorableValueError(f"{value!r} is not a datetime with a time zone; use utc_now() or .astimezone()")
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return the stored time in UTC."""
        if value is None:
            return None
        stored: datetime = value
        return stored.replace(tzinfo=UTC) if stored.tzinfo is None else stored.astimezone(UTC)


class _JsonContainer(TypeDecorator[Any]):
    """JSON whose top is one container; JSONB on PostgreSQL. None is SQL NULL, not JSON null."""

    impl = JSON
    cache_ok = True
    container: type = dict

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return JSONB for PostgreSQL, else JSON."""
        kind = JSONB if dialect.name == "postgresql" else JSON
        return dialect.type_descriptor(kind(none_as_null=True))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return the value unchanged after checking that both databases can keep it."""
        if value is not None:
            check_storable(value, self.container)
        return value

    def compare_values(self, x: Any, y: Any) -> bool:
        """Tell whether both are the same JSON; 1, 1.0 and true are equal in Python only, and an assignment is kept."""
        try:
            return json.dumps(x, sort_keys=True) == json.dumps(y, sort_keys=True)
        except (TypeError, ValueError, RecursionError):
            return False

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Compare paths inside the document as JSON does."""
        return self.impl_instance.coerce_compared_value(op, value)


class JsonDict(_JsonContainer):
    """A JSON object. Changes made in place, nested ones too, are stored (see ``tracking``)."""

    cache_ok = True
    container = dict


class JsonList(_JsonContainer):
    """A JSON array. Changes made in place, nested ones too, are stored (see ``tracking``)."""

    cache_ok = True
    container = list


def check_storable(value: object, container: type) -> None:
    """Refuse what one of the two databases would refuse or change: NaN, NUL, lone surrogates, other types.

    Raises:
        UnstorableValueError: says what is wrong.
    """
    if not isinstance(value, container):
        raise UnstorableValueError(f"a JSON {container.__name__} is wanted, not {type(value).__name__}")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except RecursionError:
        raise UnstorableValueError("the JSON value is nested too deeply") from None
    except UnicodeEncodeError:
        raise UnstorableValueError("the JSON value has text that is not valid Unicode") from None
    except (TypeError, ValueError) as error:
        raise UnstorableValueError(f"not a JSON value: {error}") from error
    if "\\u0000" in text and _has_nul(value):
        raise UnstorableValueError("the JSON value has text with a NUL character")


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return isinstance(value, (list, tuple)) and any(map(_has_nul, value))
