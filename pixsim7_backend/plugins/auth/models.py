"""The tables of accounts, login sessions and counted login attempts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.db.models import Timestamps, UtcDateTime, plugin_base

from .rules import Role

Base = plugin_base("auth")


class User(Timestamps, Base):
    """An account. ``*_key`` columns hold the case-folded form that makes a name unique."""

    __tablename__ = "users"
    community_read = frozenset({"id", "username", "display_name"})
    """What confined plugins may see: what other players see anyway. Nothing here may be written by them."""

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254))
    email_key: Mapped[str] = mapped_column(String(1000), unique=True)
    username: Mapped[str] = mapped_column(String(50))
    username_key: Mapped[str] = mapped_column(String(1000), unique=True)
    display_name: Mapped[str | None] = mapped_column(String(100))
    password_hash: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(16), default=Role.USER.value, index=True)
    is_active: Mapped[bool] = mapped_column(default=True)
    last_login_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    def __repr__(self) -> str:
        return f"<User {self.id}>"


class LoginSession(Base):
    """One login: the row that a token's ``jti`` names. Without it the token is void."""

    __tablename__ = "auth_sessions"
    __table_args__ = (Index("ix_auth_sessions_user_id_id", "user_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_id: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    address: Mapped[str] = mapped_column(String(64))
    user_agent: Mapped[str] = mapped_column(String(200))

    def __repr__(self) -> str:
        return f"<LoginSession {self.id}>"


class LoginAttempts(Base):
    """How many logins one address, or one account, has tried in its current window."""

    __tablename__ = "auth_login_attempts"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int]
    resets_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
