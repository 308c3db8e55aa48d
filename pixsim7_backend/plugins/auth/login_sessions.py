"""Login sessions in the database: opened, found, ended. A token is worth what its row says. Callers commit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, or_, select
from sqlalchemy.orm import Session

from .models import LoginSession, User
from .rules import Role
from .tokens import TokenClaims, new_token_id


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIdentity:
    """Who is asking, as of now in the database: never as of the time the token was made."""

    id: int
    email: str
    username: str
    role: Role

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN


@dataclass(frozen=True, slots=True)
class Client:
    """From where somebody logs in, for the list of logins."""

    address: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class Login:
    """A valid login: whose it is, and its row."""

    user: UserIdentity
    session_id: int


def open_session(db: Session, user: User, client: Client, *, now: datetime, lifetime: timedelta) -> TokenClaims:
    """Store a login and return the claims of its token, to whole seconds as a token has them."""
    issued_at = now.replace(microsecond=0)
    claims = TokenClaims(user_id=user.id, token_id=new_token_id(), issued_at=issued_at, expires_at=issued_at + lifetime)
    row = LoginSession(
        user_id=user.id,
        token_id=claims.token_id,
        created_at=now,
        expires_at=claims.expires_at,
        address=client.address,
        user_agent=client.user_agent,
    )
    db.add(row)
    db.flush()
    return claims


def find_login(db: Session, claims: TokenClaims, *, now: datetime) -> Login | None:
    """Return the login that a token belongs to, or None when it was ended or its user is not active. One query."""
    row = db.execute(
        select(LoginSession.id, User.id, User.email, User.username, User.role)
        .join(User, User.id == LoginSession.user_id)
        .where(
            LoginSession.token_id == claims.token_id,
            LoginSession.expires_at > now,
            User.is_active.is_(True),
        )
    ).one_or_none()
    if row is None or row[1] != claims.user_id:
        return None
    session_id, user_id, email, username, role = row
    return Login(UserIdentity(id=user_id, email=email, username=username, role=Role(role)), session_id)


def live_sessions(user_id: int, *, now: datetime) -> Select[LoginSession]:
    """Return the statement for a user's valid logins, without order and limits."""
    return select(LoginSession).where(LoginSession.user_id == user_id, LoginSession.expires_at > now)


def end(db: Session, session_id: int, *, user_id: int) -> bool:
    """End one login of a user; False when there is none, or it is somebody else's."""
    gone = delete(LoginSession).where(LoginSession.id == session_id, LoginSession.user_id == user_id)
    return db.scalars(gone.returning(LoginSession.id)).one_or_none() is not None


def end_all(db: Session, user_id: int, *, but: int | None = None) -> None:
    """End all logins of a user, except the one of row ``but``."""
    gone = delete(LoginSession).where(LoginSession.user_id == user_id)
    db.execute(gone if but is None else gone.where(LoginSession.id != but))


def trim(db: Session, user_id: int, *, now: datetime, most: int) -> None:
    """Drop a user's expired logins, and the oldest ones beyond ``most``."""
    kept = select(LoginSession.id).where(LoginSession.user_id == user_id).order_by(LoginSession.id.desc()).limit(most)
    stale = or_(LoginSession.expires_at <= now, LoginSession.id.not_in(kept))
    db.execute(
        delete(LoginSession).where(LoginSession.user_id == user_id, stale).execution_options(synchronize_session=False)
    )
