"""Users: one's own profile, usage and preferences; everybody's, for admins."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Query

from pixsim7_backend.db import DbSession, ReadOnlyDb
from pixsim7_backend.infrastructure.plugins.types import PluginManifest
from pixsim7_backend.paging import Page, PageParams, paginate
from pixsim7_backend.plugins import auth
from pixsim7_backend.plugins.auth import AccountFilter, CurrentUser, Role, UserAccount, admin_user
from pixsim7_backend.storable import JsonObject, PathId, Text

from . import preferences, views
from .meter import Meter, install_meter
from .schemas import AccountChanges, AdministeredAccount, ProfileChanges, UsageView

manifest = PluginManifest(
    id="users",
    name="Users",
    version="1.0.0",
    description="Profiles, preferences, and what each user uses of their quotas.",
    author="PixSim7",
    prefix="/api/v1",
    tags=["users"],
    dependencies=["auth"],
    requires_db=True,
)

router = APIRouter(prefix="/users", tags=["users"])

_MERGE_PATCH: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/merge-patch+json": {"schema": {"type": "object", "additionalProperties": True}},
            "application/json": {"schema": {"type": "object", "additionalProperties": True}},
        },
    }
}


def on_load(app: FastAPI) -> None:
    """Read the settings."""
    install_meter(app)


@router.get("/me")
def read_me(user: CurrentUser, db: ReadOnlyDb) -> UserAccount:
    """Return the caller's account."""
    return auth.get_account(db, user.id)


@router.patch("/me")
def change_me(changes: ProfileChanges, user: CurrentUser, db: DbSession) -> UserAccount:
    """Change the caller's e-mail address, username or display name; 409 when the new one is taken."""
    return auth.update_profile(db, user.id, changes.model_dump(exclude_unset=True))


@router.get("/me/usage")
def read_usage(user: CurrentUser, db: ReadOnlyDb, meter: Meter) -> UsageView:
    """Return what the caller has used today (UTC) and in all, against the quotas."""
    return views.usage(meter.usage(db, user.id), meter.quotas(db, user.id), now=meter.clock())


@router.get("/me/preferences")
def read_preferences(user: CurrentUser, db: ReadOnlyDb) -> dict[str, Any]:
    """Return the caller's preferences: the JSON object that the client keeps here."""
    return preferences.read(db, user.id)


@router.patch("/me/preferences", openapi_extra=_MERGE_PATCH)
def change_preferences(changes: Annotated[JsonObject, Body()], user: CurrentUser, db: DbSession) -> dict[str, Any]:
    """Merge a JSON merge patch (RFC 7386) into the caller's preferences: null takes a member away."""
    return preferences.patch(db, user.id, changes)


_ADMINS_ONLY = [Depends(admin_user)]


async def _wanted(
    role: Role | None = None,
    is_active: bool | None = None,
    q: Annotated[Text | None, Query(max_length=254, description="part of a name or e-mail address")] = None,
) -> AccountFilter:
    return AccountFilter(role=role, is_active=is_active, text=q)


@router.get("", include_in_schema=False, dependencies=_ADMINS_ONLY)
@router.get("/", dependencies=_ADMINS_ONLY)
def list_users(
    wanted: Annotated[AccountFilter, Depends(_wanted)], db: ReadOnlyDb, page: PageParams
) -> Page[UserAccount]:
    """List accounts by id. Admins only."""
    return paginate(db, auth.accounts_matching(wanted), page)


@router.get("/{user_id}", dependencies=_ADMINS_ONLY)
def read_user(user_id: PathId, db: ReadOnlyDb, meter: Meter) -> AdministeredAccount:
    """Return an account with its quotas. Admins only."""
    return views.administered(auth.get_account(db, user_id), meter.quotas(db, user_id))


@router.patch("/{user_id}", dependencies=_ADMINS_ONLY)
def change_user(user_id: PathId, changes: AccountChanges, db: DbSession, meter: Meter) -> AdministeredAccount:
    """Change an account's role, whether it is active, and its quotas. Admins only.

    Deactivating ends the user's logins at once; 409 when no active admin would be left.
    """
    wanted = {name: getattr(changes, name) for name in changes.model_fields_set - {"quotas"}}
    account = auth.administer(db, user_id, **wanted)
    meter.set_quotas(db, user_id, changes.quotas.model_dump(exclude_unset=True))
    return views.administered(account, meter.quotas(db, user_id))
