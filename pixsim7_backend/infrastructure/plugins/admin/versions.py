"""``ETag`` and ``If-Match`` (RFC 9110) for the versions of records."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header, HTTPException

_TAGS = re.compile(r'\s*(?:(?:W/)?"[^"]*"|\d+)(?:\s*,\s*(?:(?:W/)?"[^"]*"|\d+))*\s*')
_STRONG = re.compile(r'(?:W/"[^"]*")|"(\d{1,18})"|(?<![\w"])(\d{1,18})(?![\w"])')


def etag(version: int) -> str:
    """Return the strong entity tag of a version."""
    return f'"{version}"'


def accepted_versions(
    if_match: Annotated[str | None, Header(description='the `ETag` last seen, like `"3"`, or `*`')] = None,
) -> frozenset[int] | None:
    """Return the versions that ``If-Match`` lists; None where any will do. A weak tag never matches.

    Raises:
        HTTPException: 400, the header is not a list of entity tags.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    if not _TAGS.fullmatch(if_match):
        raise HTTPException(400, 'If-Match must be `*` or a list of entity tags, like `"3"`')
    return frozenset(int(quoted or bare) for quoted, bare in _STRONG.findall(if_match) if quoted or bare)


AcceptedVersions = Annotated[frozenset[int] | None, Depends(accepted_versions)]
