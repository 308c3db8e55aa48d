"""Accounts in the database: made, found, changed. Callers commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pixsim7_backend.problems import Conflict, NotFound

from . import login_sessions, rules
from .models import User
from .rules import LoginName, Role
from .schemas import Registration, UserAccount


class DuplicateAccountError(Conflict):
    """The e-mail address or the username is taken; ``field`` says which."""

    def __init__(self, field: LoginName) -> None:
        what = "e-mail address" if field is LoginName.EMAIL else "username"
        super().__init__(f"this {what} is taken; choose another, or log in", field=str(field))
        self.field = field


class LastAdminError(Conflict):
    """The change would leave nobody who may administer."""

    def __init__(self) -> None:
        super().__init__("this is the last active admin; make somebody else an admin first")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFilter:
    """Which accounts a list shows; None means any."""

    role: Role | None = None
    is_active: bool | None = None
    text: str | None = None
    """Part of the e-mail address, username or display name."""


def create_account(db: Session, new: Registration, *, password_hash: str, role: Role = Role.USER) -> User:
    """Store a new account.

    Raises:
        DuplicateAccountError: the address or the name is taken, also by somebody who was faster by an instant.
    """
    user = User(
        email=new.email,
        email_key=rules.comparison_key(new.email),
        username=new.username,
        username_key=rules.comparison_key(new.username),
        display_name=new.display_name,
        password_hash=password_hash,
        role=role.value,
        is_active=True,
    )
    names = _Names(user.email_key, user.username_key)
    names.refuse_taken(db)
    with names.claimed(db):
        db.add(user)
    return user


def find_for_login(db: Session, identifier: str) -> User | None:
    """Return the account that an e-mail address or a username means, in any spelling."""
    name, key = rules.login_key(identifier)
    column = User.email_key if name is LoginName.EMAIL else User.username_key
    return db.scalars(select(User).where(column == key)).one_or_none()


def get_account(db: Session, user_id: int) -> UserAccount:
    """Return one account; NotFound when there is none."""
    return UserAccount.model_validate(_get(db, user_id))


def accounts_matching(wanted: AccountFilter) -> Select[User]:
    """Return the statement for the accounts that a filter lets through, without order and limits."""
    statement = select(User)
    if wanted.role is not None:
        statement = statement.where(User.role == wanted.role.value)
    if wanted.is_active is not None:
        statement = statement.where(User.is_active.is_(wanted.is_active))
    if wanted.text:
        key = rules.comparison_key(wanted.text)
        names = (User.email_key, User.username_key, func.lower(User.display_name))
        statement = statement.where(or_(*(name.contains(key, autoescape=True) for name in names)))
    return statement


def update_profile(db: Session, user_id: int, changes: Mapping[str, Any]) -> UserAccount:
    """Change ``email``, ``username`` or ``display_name`` (those that are there), already normalised.

    Raises:
        DuplicateAccountError: somebody else has that address or name.
        NotFound: there is no such account.
    """
    user = _get(db, user_id)
    email, username = changes.get("email", user.email), changes.get("username", user.username)
    names = _Names(rules.comparison_key(email), rules.comparison_key(username), owner_id=user_id)
    names.refuse_taken(db)
    with names.claimed(db):
        user.email, user.email_key = email, names.email_key
        user.username, user.username_key = username, names.username_key
        user.display_name = changes.get("display_name", user.display_name)
    db.refresh(user)
    return UserAccount.model_validate(user)


def administer(db: Session, user_id: int, *, role: Role | None = None, is_active: bool | None = None) -> UserAccount:
    """Change what an account may do; None leaves it as it is. Deactivating ends all its logins.

    Raises:
        LastAdminError: no active admin would be left; also when two admins demote each other at once.
        NotFound: there is no such account.
    """
    # Locked in one order by everybody, so that whoever comes second sees what the first one did.
    admins = list(db.scalars(_ACTIVE_ADMINS).all())
    user = _get(db, user_id)
    will_be_admin = (user.role if role is None else role) == Role.ADMIN and is_active is not False
    if admins == [user_id] and not will_be_admin:
        raise LastAdminError
    if role is not None:
        user.role = role.value
    if is_active is not None:
        user.is_active = is_active
    if is_active is False:
        login_sessions.end_all(db, user_id)
    db.flush()
    db.refresh(user)
    return UserAccount.model_validate(user)


_ACTIVE_ADMINS = (
    select(User.id).where(User.role == Role.ADMIN.value, User.is_active.is_(True)).order_by(User.id).with_for_update()
)


def _get(db: Session, user_id: int) -> User:
    user = db.get(User, user_id, populate_existing=True)
    if user is None:
        raise NotFound("user", user_id)
    return user


@dataclass(frozen=True, slots=True)
class _Names:
    """The keys of the names that an account (``owner_id``; a new one: None) is to have."""

    email_key: str
    username_key: str
    owner_id: int | None = None

    def refuse_taken(self, db: Session) -> None:
        """Raise DuplicateAccountError when another account has one of them."""
        same = or_(User.email_key == self.email_key, User.username_key == self.username_key)
        others = select(User.email_key).where(same)
        if self.owner_id is not None:
            others = others.where(User.id != self.owner_id)
        taken = db.scalars(others).first()
        if taken is not None:
            raise DuplicateAccountError(LoginName.EMAIL if taken == self.email_key else LoginName.USERNAME)

    @contextmanager
    def claimed(self, db: Session) -> Iterator[None]:
        """Store the changes made inside; the unique index decides against somebody faster by an instant.

        They must be made inside: what is pending before a savepoint is flushed outside of it.
        """
        try:
            with db.begin_nested():
                yield
                db.flush()
        except IntegrityError:
            self.refuse_taken(db)
            raise
