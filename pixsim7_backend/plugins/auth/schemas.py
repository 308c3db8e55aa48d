"""What clients send and get."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from . import rules
from .rules import Role

_EMAIL = {"format": "email", "minLength": rules.EMAIL_LENGTH[0], "maxLength": rules.EMAIL_LENGTH[1]}
_USERNAME = {"minLength": rules.USERNAME_LENGTH[0], "maxLength": rules.USERNAME_LENGTH[1]}
_DISPLAY_NAME = {"minLength": rules.DISPLAY_NAME_LENGTH[0], "maxLength": rules.DISPLAY_NAME_LENGTH[1]}
_PASSWORD = {"format": "password", "minLength": rules.PASSWORD_LENGTH[0], "maxLength": rules.PASSWORD_LENGTH[1]}
_ANY_PASSWORD = {"format": "password", "maxLength": rules.PASSWORD_LENGTH[1]}


def _checked_secret(value: SecretStr) -> SecretStr:
    return SecretStr(rules.checked_password(value.get_secret_value()))


def _presented_secret(value: SecretStr) -> SecretStr:
    return SecretStr(rules.presented_password(value.get_secret_value()))


# The raw input is bounded before any rule looks at it: normalising is not free.
Email = Annotated[str, Field(max_length=1000, json_schema_extra=_EMAIL), AfterValidator(rules.normalise_email)]
Username = Annotated[str, Field(max_length=1000, json_schema_extra=_USERNAME), AfterValidator(rules.normalise_username)]
DisplayName = Annotated[
    str, Field(max_length=1000, json_schema_extra=_DISPLAY_NAME), AfterValidator(rules.normalise_display_name)
]
NewPassword = Annotated[SecretStr, Field(json_schema_extra=_PASSWORD), AfterValidator(_checked_secret)]
GivenPassword = Annotated[SecretStr, Field(json_schema_extra=_ANY_PASSWORD), AfterValidator(_presented_secret)]
Identifier = Annotated[str, Field(min_length=1, max_length=rules.EMAIL_LENGTH[1]), AfterValidator(rules.checked_text)]


class _Input(BaseModel):
    # What was sent may hold a password: it never appears in an error's text.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Registration(_Input):
    """A new account."""

    email: Email
    username: Username
    password: NewPassword
    display_name: DisplayName | None = None


class Credentials(_Input):
    """E-mail address or username (one of them; either field takes either), and the password."""

    email: Identifier | None = None
    username: Identifier | None = None
    password: GivenPassword

    @model_validator(mode="after")
    def _exactly_one_name(self) -> Credentials:
        if (self.email is None) == (self.username is None):
            raise ValueError("give either email or username")
        return self

    @property
    def identifier(self) -> str:
        return self.email or self.username or ""


class PasswordChange(_Input):
    """The password of today and the one that replaces it."""

    current_password: GivenPassword
    new_password: NewPassword


class UserAccount(BaseModel):
    """An account as its owner and admins see it; nothing in it is secret."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: int
    email: str
    username: str
    display_name: str | None
    role: Role
    is_active: bool
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None


class AccessToken(BaseModel):
    """A login: the token to send as ``Authorization: Bearer …``, and whose it is."""

    model_config = ConfigDict(frozen=True)

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a word of OAuth2
    expires_in: int
    """Seconds until it expires."""
    user: UserAccount


class SessionView(BaseModel):
    """One login that is still valid."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: int
    created_at: datetime
    expires_at: datetime
    address: str
    user_agent: str
    current: bool = False
    """Whether it is the login of the token that asks."""
