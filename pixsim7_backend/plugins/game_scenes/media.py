"""The port at which scenes ask for media: whoever keeps assets provides it, nobody has to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from sqlalchemy.orm import Session

from pixsim7_backend.infrastructure.plugins import ports
from pixsim7_backend.problems import UnprocessableContent

__all__ = ["MediaPort", "PlayableMedia", "check_assets", "find_media"]

PORT = "media"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayableMedia:
    """What a player needs to show an asset."""

    id: int
    url: str
    duration_sec: float | None = None
    tags: tuple[str, ...] = ()


class MediaPort(Protocol):
    """What is provided as ``ports.provide("media", ...)``."""

    def find_readable(self, db: Session, asset_ids: Collection[int], user_id: int) -> Mapping[int, PlayableMedia]:
        """Return those of the assets that exist and that the user may read, by id."""
        ...


def find_media(db: Session, asset_ids: Iterable[int | None], user_id: int) -> Mapping[int, PlayableMedia]:
    """Return the readable ones of ``asset_ids``; none where nobody keeps media."""
    port = cast("MediaPort | None", ports.find(PORT))
    wanted = {asset_id for asset_id in asset_ids if asset_id is not None}
    return port.find_readable(db, wanted, user_id) if port is not None and wanted else {}


def check_assets(db: Session, asset_ids: Iterable[int | None], user_id: int) -> None:
    """Refuse assets that do not exist; where nobody keeps media, any id is taken.

    Raises:
        UnprocessableContent: names the unknown ones.
    """
    if ports.find(PORT) is None:
        return
    wanted = sorted({asset_id for asset_id in asset_ids if asset_id is not None})
    readable = find_media(db, wanted, user_id)
    unknown = [asset_id for asset_id in wanted if asset_id not in readable]
    if unknown:
        raise UnprocessableContent(f"there is no asset {', '.join(map(str, unknown[:20]))}", asset_ids=unknown)
