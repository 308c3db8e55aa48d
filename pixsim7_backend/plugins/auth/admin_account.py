"""Making the first admin, from the command line: no server runs and nobody is logged in."""

from __future__ import annotations

from pydantic import SecretStr, ValidationError
from sqlalchemy.orm import Session

from . import accounts
from .login_sessions import UserIdentity
from .rules import Role
from .runtime import build_hashing
from .schemas import Registration
from .settings import AuthSettings


class InvalidAccountError(ValueError):
    """The address, name or password of a new account is not acceptable; one line per field, nothing secret."""


def create_admin(db: Session, *, email: str, username: str, password: str) -> UserIdentity:
    """Make an active admin account; the caller commits.

    Raises:
        InvalidAccountError: a value breaks the rules that registering has.
        DuplicateAccountError: the address or the name is taken.
    """
    try:
        new = Registration(email=email, username=username, password=SecretStr(password))
    except ValidationError as error:
        raise InvalidAccountError("\n".join(_lines(error))) from None
    password_hash = build_hashing(AuthSettings()).hash_now(new.password.get_secret_value())
    user = accounts.create_account(db, new, password_hash=password_hash, role=Role.ADMIN)
    return UserIdentity(id=user.id, email=user.email, username=user.username, role=Role.ADMIN)


def _lines(error: ValidationError) -> list[str]:
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    return [f"{problem['loc'][0]}: {str(problem['msg']).removeprefix('Value error, ')}" for problem in problems]
