"""Logging in: count the attempt, weigh the password, open the session.

Registering and logging in use the database in short steps of their own: while a password waits to be
hashed, the request holds neither a transaction nor one of the places at the database, so that a flood of
logins leaves the rest of the backend alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pixsim7_backend.db import Database
from pixsim7_backend.problems import Forbidden, TooManyRequests, Unauthorized

from . import accounts, attempts, login_sessions, rules
from .login_sessions import Client, Login
from .models import User
from .passwords import Verdict
from .rules import LoginLimit
from .runtime import AuthRuntime
from .schemas import AccessToken, Credentials, PasswordChange, Registration, UserAccount

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A counted attempt: the keys it is counted under, and whose password it must match (nobody's: None)."""

    address_key: str
    account_key: str
    user_id: int | None = None
    password_hash: str | None = None


async def register(auth: AuthRuntime, database: Database, new: Registration, client: Client) -> AccessToken:
    """Make an account and log it in; DuplicateAccountError when the address or the name is taken."""
    with auth.passwords.place():
        password_hash = await auth.passwords.hash(new.password.get_secret_value())

    def store(db: Session) -> AccessToken:
        user = accounts.create_account(db, new, password_hash=password_hash)
        return _open(auth, db, user, client)

    return await _in_short_session(database, store)


async def log_in(auth: AuthRuntime, database: Database, given: Credentials, client: Client) -> AccessToken:
    """Check a password and open a session.

    Raises:
        Unauthorized: no such account, or not its password; which of the two is not told, nor to be timed.
        Forbidden: the password is right, but the account is deactivated.
        TooManyRequests: this address, or anybody for this account, failed too often lately.
    """
    with auth.passwords.place():
        attempt = await _in_short_session(database, lambda db: _admit(auth, db, given.identifier, client))
        verdict = await auth.passwords.verify(attempt.password_hash, given.password.get_secret_value())
    if not verdict.matches:
        raise _wrong_password()
    return await _in_short_session(database, lambda db: _complete(auth, db, attempt, verdict, client))


async def _in_short_session(database: Database, work: Callable[[Session], _T]) -> _T:
    """Run ``work`` in a thread with a session of its own, committed at the end; wait for a place without a thread."""

    def run() -> _T:
        with database.new_session() as db:
            outcome = work(db)
            db.commit()
            return outcome

    place = await database.admission.enter()
    try:
        return await run_in_threadpool(run)
    finally:
        place.release()


async def change_password(auth: AuthRuntime, db: Session, login: Login, change: PasswordChange, client: Client) -> None:
    """Replace the caller's password and end their other logins; guesses count like failed logins."""
    with auth.passwords.place():
        attempt = await run_in_threadpool(_admit, auth, db, login.user.email, client)
        verdict = await auth.passwords.verify(attempt.password_hash, change.current_password.get_secret_value())
        if not verdict.matches:
            raise Forbidden("the current password is wrong")
        new_hash = await auth.passwords.hash(change.new_password.get_secret_value())
    await run_in_threadpool(_replace_password, db, login, attempt, new_hash)


def _admit(auth: AuthRuntime, db: Session, identifier: str, client: Client) -> _Attempt:
    """Count the attempt before it is known how it ends, and commit, so that parallel ones see it."""
    user = accounts.find_for_login(db, identifier)
    secret, settings = auth.attempts_secret, auth.settings
    whom = f"user {user.id}" if user else "name " + rules.login_key(identifier)[1]
    attempt = _Attempt(
        address_key=rules.attempt_key(secret, "address", rules.address_group(client.address)),
        account_key=rules.attempt_key(secret, "account", whom),
        user_id=user.id if user else None,
        password_hash=user.password_hash if user else None,
    )
    _count(auth, db, attempt.address_key, settings.address_limit)
    _count(auth, db, attempt.account_key, settings.account_limit)
    db.commit()
    return attempt


def _count(auth: AuthRuntime, db: Session, key: str, limit: LoginLimit) -> None:
    wait = attempts.count_attempt(db, key, limit, now=auth.clock())
    if wait is not None:
        db.commit()
        raise TooManyRequests("too many failed logins; wait, then try again", retry_after=wait)


def _complete(auth: AuthRuntime, db: Session, attempt: _Attempt, verdict: Verdict, client: Client) -> AccessToken:
    user = _lock_unchanged(db, attempt)
    attempts.take_back(db, attempt.address_key)
    attempts.forget(db, attempt.account_key)
    if user is None:
        raise _wrong_password()
    if not user.is_active:
        raise Forbidden("this account is deactivated; ask an admin")
    if verdict.rehashed is not None:
        user.password_hash = verdict.rehashed
    token = _open(auth, db, user, client)
    db.commit()
    attempts.prune(db, now=auth.clock())
    return token


def _lock_unchanged(db: Session, attempt: _Attempt) -> User | None:
    """Return the account if its password is still the one that was weighed, locked until the commit."""
    same = select(User).where(User.id == attempt.user_id, User.password_hash == attempt.password_hash)
    return db.scalars(same.with_for_update().execution_options(populate_existing=True)).one_or_none()


def _open(auth: AuthRuntime, db: Session, user: User, client: Client) -> AccessToken:
    now, settings = auth.clock(), auth.settings
    # Logging in is not a change of the account: updated_at stays.
    seen = update(User).where(User.id == user.id).values(last_login_at=now, updated_at=User.updated_at)
    db.execute(seen.execution_options(synchronize_session=False))
    claims = login_sessions.open_session(db, user, client, now=now, lifetime=settings.token_lifetime)
    login_sessions.trim(db, user.id, now=now, most=settings.max_sessions)
    db.refresh(user)
    return AccessToken(
        access_token=auth.signer.sign(claims),
        expires_in=int(settings.token_lifetime.total_seconds()),
        user=UserAccount.model_validate(user),
    )


def _replace_password(db: Session, login: Login, attempt: _Attempt, new_hash: str) -> None:
    user = _lock_unchanged(db, attempt)
    if user is None:
        raise Forbidden("the password was changed meanwhile")
    user.password_hash = new_hash
    attempts.take_back(db, attempt.address_key)
    attempts.forget(db, attempt.account_key)
    login_sessions.end_all(db, login.user.id, but=login.session_id)


def _wrong_password() -> Unauthorized:
    return Unauthorized("wrong e-mail address, username or password")
