"""What a confined plugin may say to Redis: these commands, these options, these keys. Pure.

All that is not written down here is refused. A command comes as Redis would get it, in pieces of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["COMMANDS", "Checked", "CommandError", "Need", "RedisLimits", "check_command"]

_KEY = re.compile(rb"[A-Za-z0-9_:.@/+=,{}|~!#$%&()-]{1,512}")
_WHOLE = re.compile(rb"-?[0-9]{1,19}")
_BOUND = re.compile(rb"\(?(?:-?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?|[+-]?inf)")


class CommandError(ValueError):
    """A command is none that plugins may use; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisLimits:
    """What one command may hold and bring. Sizes are in bytes."""

    value: int = 256 << 10
    """Of a value that is set."""
    element: int = 16 << 10
    """Of a member, a field, or anything else."""
    command: int = 512 << 10
    pieces: int = 2000
    keys: int = 100
    items: int = 5000
    """How many a list, hash or set may have that is read as a whole."""
    reply: int = 768 << 10
    connections: int = 4
    time: float = 5.0
    """Seconds that Redis may take."""


@dataclass(frozen=True, slots=True)
class Need:
    """What must be granted for the keys of a command."""

    reads: bool
    writes: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """A command that may be sent, as far as its form goes."""

    name: str
    pieces: tuple[bytes, ...]
    """What follows the name."""
    keys: tuple[int, ...]
    """Which of these are keys."""
    need: Need
    measure: str = ""
    """The command that tells how many items it would bring, where that must be asked first."""


READ, WRITE, BOTH = Need(reads=True, writes=False), Need(reads=False, writes=True), Need(reads=True, writes=True)
_Pieces = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class _Form:
    need: Need
    fewest: int
    most: int | None
    keys: Callable[[int], range] = lambda _: range(1)
    options: Mapping[bytes, int] | None = None
    """Words behind ``fewest`` pieces, with how many whole numbers follow each."""
    numbers: tuple[int, ...] = ()
    """Which pieces are whole numbers."""
    values: bool = False
    """Its pieces may be as large as values."""
    measure: str = ""


def _all(count: int) -> range:
    return range(count)


def _every_other(count: int) -> range:
    return range(0, count, 2)


_EXPIRY = {b"EX": 1, b"PX": 1, b"EXAT": 1, b"PXAT": 1, b"KEEPTTL": 0}
_CONDITIONS = {b"NX": 0, b"XX": 0}
_COMPARISONS = {b"GT": 0, b"LT": 0}
_RANGE = {b"BYSCORE": 0, b"REV": 0, b"WITHSCORES": 0, b"LIMIT": 2}

COMMANDS: Mapping[str, _Form] = {
    "GET": _Form(READ, 1, 1),
    "SET": _Form(WRITE, 2, None, options={**_EXPIRY, **_CONDITIONS, b"GET": 0}, values=True),
    "GETDEL": _Form(BOTH, 1, 1),
    "DEL": _Form(WRITE, 1, None, keys=_all),
    "EXISTS": _Form(READ, 1, None, keys=_all),
    "EXPIRE": _Form(WRITE, 2, None, options={**_CONDITIONS, **_COMPARISONS}, numbers=(1,)),
    "TTL": _Form(READ, 1, 1),
    "INCRBY": _Form(BOTH, 2, 2, numbers=(1,)),
    "DECRBY": _Form(BOTH, 2, 2, numbers=(1,)),
    "MGET": _Form(READ, 1, None, keys=_all),
    "MSET": _Form(WRITE, 2, None, keys=_every_other, values=True),
    "HGET": _Form(READ, 2, 2),
    "HSET": _Form(WRITE, 3, None),
    "HGETALL": _Form(READ, 1, 1, measure="HLEN"),
    "HLEN": _Form(READ, 1, 1),
    "HDEL": _Form(WRITE, 2, None),
    "HINCRBY": _Form(BOTH, 3, 3, numbers=(2,)),
    "LPUSH": _Form(WRITE, 2, None),
    "RPUSH": _Form(WRITE, 2, None),
    "LPOP": _Form(BOTH, 1, 2, numbers=(1,)),
    "RPOP": _Form(BOTH, 1, 2, numbers=(1,)),
    "LRANGE": _Form(READ, 3, 3, numbers=(1, 2), measure="LLEN"),
    "LLEN": _Form(READ, 1, 1),
    "LTRIM": _Form(WRITE, 3, 3, numbers=(1, 2)),
    "SADD": _Form(WRITE, 2, None),
    "SREM": _Form(WRITE, 2, None),
    "SMEMBERS": _Form(READ, 1, 1, measure="SCARD"),
    "SISMEMBER": _Form(READ, 2, 2),
    "SCARD": _Form(READ, 1, 1),
    "ZADD": _Form(WRITE, 3, None),
    "ZRANGE": _Form(READ, 3, None, options=_RANGE, measure="ZCARD"),
    "ZREVRANGE": _Form(READ, 3, 4, options={b"WITHSCORES": 0}, numbers=(1, 2), measure="ZCARD"),
    "ZREM": _Form(WRITE, 2, None),
    "ZSCORE": _Form(READ, 2, 2),
    "ZCARD": _Form(READ, 1, 1),
}
"""The commands, by name: what they need, and how many pieces they have."""


def check_command(pieces: Sequence[object], limits: RedisLimits) -> Checked:
    """Return what a plugin wants to be sent.

    Raises:
        CommandError: it is no command for plugins, or not in this form.
    """
    name, rest = _read(pieces, limits)
    form = COMMANDS.get(name)
    if form is None:
        raise CommandError(f"Redis commands for plugins: {', '.join(sorted(COMMANDS)).lower()}; {name[:40]!r} is none")
    if len(rest) < form.fewest or (form.most is not None and len(rest) > form.most):
        raise CommandError(f"{name} has another number of arguments")
    largest = limits.value if form.values else limits.element
    if any(len(piece) > largest for piece in rest):
        raise CommandError(f"an argument of {name} may have {largest:,} bytes")
    keys = tuple(form.keys(len(rest)))
    _check_keys([rest[at] for at in keys], limits)
    _check_numbers(name, [rest[at] for at in form.numbers if at < len(rest)])
    words = _check_options(name, form, rest)
    need = BOTH if b"GET" in words else form.need
    _check_count(name, rest, limits)
    measure = "" if _is_short(name, rest, words, limits) else form.measure
    return Checked(name, rest, keys, need, measure)


def _read(pieces: Sequence[object], limits: RedisLimits) -> tuple[str, tuple[bytes, ...]]:
    if not pieces or len(pieces) > limits.pieces:
        raise CommandError(f"a command may have {limits.pieces:,} arguments")
    read = tuple(each for each in pieces if isinstance(each, bytes))
    if len(read) != len(pieces):
        raise CommandError("a command is made of bytes")
    if sum(map(len, read)) > limits.command:
        raise CommandError(f"a command may have {limits.command:,} bytes")
    return read[0].decode("ascii", "replace").upper(), read[1:]


def _check_keys(keys: Sequence[bytes], limits: RedisLimits) -> None:
    if len(keys) > limits.keys:
        raise CommandError(f"a command may have {limits.keys} keys")
    for key in keys:
        if not _KEY.fullmatch(key):
            shown = key[:60].decode("ascii", "backslashreplace")
            raise CommandError(
                f"{shown!r} is no key: up to 512 visible ASCII characters, without spaces, quotes and * ? [ ] ^ \\"
            )


def _check_numbers(name: str, pieces: Sequence[bytes]) -> None:
    if not all(_WHOLE.fullmatch(piece) for piece in pieces):
        raise CommandError(f"{name} wants whole numbers")


def _check_options(name: str, form: _Form, rest: _Pieces) -> set[bytes]:
    """Check the words behind the fixed pieces; return them."""
    words: set[bytes] = set()
    if form.options is None:
        return words
    left = list(rest[form.fewest :])
    while left:
        word = left.pop(0).upper()
        if word not in form.options:
            raise CommandError(f"{name} has no option {word[:20].decode('ascii', 'replace')!r} for plugins")
        values, left = left[: form.options[word]], left[form.options[word] :]
        if len(values) < form.options[word]:
            raise CommandError(f"{name} wants a number behind {word.decode()}")
        _check_numbers(name, values)
        words.add(word)
    if name == "ZRANGE" and not all(_BOUND.fullmatch(bound) for bound in rest[1:3]):
        raise CommandError("ZRANGE goes by rank or, with BYSCORE, by score")
    return words


def _check_count(name: str, rest: _Pieces, limits: RedisLimits) -> None:
    if name in ("LPOP", "RPOP") and len(rest) == 2 and not 0 <= int(rest[1]) <= limits.items:
        raise CommandError(f"{name} gives up to {limits.items:,} items at once")


def _is_short(name: str, rest: _Pieces, words: set[bytes], limits: RedisLimits) -> bool:
    """Tell whether the range that is asked for has few enough items, however many there are."""
    if name not in ("LRANGE", "ZRANGE", "ZREVRANGE"):
        return False
    if b"BYSCORE" in words or not (_WHOLE.fullmatch(rest[1]) and _WHOLE.fullmatch(rest[2])):
        return False
    first, last = int(rest[1]), int(rest[2])
    return (first < 0) == (last < 0) and last - first < limits.items
