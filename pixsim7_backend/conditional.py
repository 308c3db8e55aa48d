"""Conditional writes (RFC 9110, 13.1.1): an ``ETag`` per row version, and ``If-Match`` against lost updates.

A handler takes ``if_match: IfMatch``, locks the row, calls ``if_match.require(row.version)`` (412 when the
caller saw an older one), and answers with the header ``ETag: etag(row.version)``.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header

from pixsim7_backend.problems import BadRequest, PreconditionFailed

__all__ = ["IfMatch", "IfMatchCondition", "etag"]

_TAG = re.compile(r'\s*(?:(?P<weak>W/)?"(?P<tag>[\x21\x23-\x7e\x80-\xff]*)"|(?P<bare>[0-9]+))?\s*(?:,|$)')


def etag(version: int) -> str:
    """Return the strong entity tag of this version of a row."""
    return f'"{version}"'


class IfMatchCondition:
    """What ``If-Match`` asks for: nothing, any version (``*``), or one of the listed entity tags.

    Several header lines count as one list. A weak tag never matches, as the RFC demands. A bare
    number (``If-Match: 3``) is taken for the tag that it is missing the quotes of.

    Raises:
        BadRequest: the header is not a list of entity tags.
    """

    def __init__(
        self,
        if_match: Annotated[list[str] | None, Header(description='the `ETag` last seen, like `"3"`, or `*`')] = None,
    ) -> None:
        header = ",".join(if_match) if if_match is not None else None
        self.is_given = header is not None
        self._is_any = header is not None and header.strip() == "*"
        self._tags = frozenset() if header is None or self._is_any else _parse(header)

    def require(self, version: int) -> None:
        """Raise PreconditionFailed (412, with the current ``ETag``) unless ``version`` is admitted."""
        if not self.is_given or self._is_any or str(version) in self._tags:
            return
        raise PreconditionFailed(
            f"this has changed: it is now version {version}; read it again, and repeat with its ETag in If-Match",
            headers={"ETag": etag(version)},
            version=version,
        )


def _parse(header: str) -> frozenset[str]:
    """Return the strong tags of the list."""
    tags, position, found = set(), 0, False
    while position < len(header):
        match = _TAG.match(header, position)
        if match is None or match.end() == position:
            raise _malformed()
        position = match.end()
        found = found or match["tag"] is not None or match["bare"] is not None
        if match["tag"] is not None and not match["weak"]:
            tags.add(match["tag"])
        if match["bare"] is not None:
            tags.add(str(int(match["bare"][:20])))
    if not found:
        raise _malformed()
    return frozenset(tags)


def _malformed() -> BadRequest:
    return BadRequest('If-Match must be `*` or a list of entity tags, like `"3"`')


IfMatch = Annotated[IfMatchCondition, Depends()]
"""The request's ``If-Match``; use :meth:`IfMatchCondition.require`."""
