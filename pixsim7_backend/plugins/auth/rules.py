"""The rules of accounts and logins: pure functions that know no HTTP, no database and no clock."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from email_validator import EmailNotValidError, validate_email

USERNAME_LENGTH = (3, 50)
PASSWORD_LENGTH = (8, 128)
DISPLAY_NAME_LENGTH = (1, 100)
EMAIL_LENGTH = (3, 254)
_JOINERS = "\u200c\u200d"


class Role(StrEnum):
    """What a user may do."""

    ADMIN = "admin"
    """Everything, other people's accounts included."""
    USER = "user"
    """Own things."""
    GUEST = "guest"
    """Like a user, for plugins that want to offer guests less."""


class LoginName(StrEnum):
    """By which of its two names an account is found; a username never holds an ``@``."""

    EMAIL = "email"
    USERNAME = "username"


def checked_text(value: str) -> str:
    """Return ``value`` in NFKC.

    Raises:
        ValueError: it holds control characters (NUL among them) or half of a surrogate pair.
    """
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        raise ValueError("control characters are not allowed")
    return unicodedata.normalize("NFKC", value)


def normalise_email(value: str) -> str:
    """Return the address in the form that is stored and shown: NFKC, no outer blanks, domain in lower case.

    Raises:
        ValueError: it is not an e-mail address, or longer than 254 characters.
    """
    text = checked_text(value.strip())
    try:
        address = validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise ValueError(f"{error} Write it like 'ann@example.com'.") from None
    _check_length(address, "e-mail address", EMAIL_LENGTH)
    return address


def normalise_username(value: str) -> str:
    """Return the name in the form that is stored and shown: NFKC, no outer blanks.

    An ``@`` is refused, so that a name can never pass for somebody's e-mail address at login.

    Raises:
        ValueError: it is not 3 to 50 letters, digits, dots, hyphens and underscores.
    """
    name = checked_text(value.strip())
    _check_length(name, "username", USERNAME_LENGTH)
    if not all(character.isalnum() or character in "._-" for character in name) or not name[0].isalnum():
        raise ValueError("a username has letters, digits, '.', '-' and '_', and starts with a letter or digit")
    return name


def normalise_display_name(value: str) -> str:
    """Return the name without outer blanks.

    Raises:
        ValueError: it is empty, longer than 100 characters, or holds characters that could make it
            look like another name (invisible ones, writing direction), emoji joiners excepted.
    """
    name = checked_text(value.strip())
    _check_length(name, "display name", DISPLAY_NAME_LENGTH)
    if any(unicodedata.category(character) == "Cf" and character not in _JOINERS for character in name):
        raise ValueError("invisible characters are not allowed")
    return name


def checked_password(value: str) -> str:
    """Return a new password in NFKC (so that every keyboard yields the same bytes).

    Raises:
        ValueError: it is not 8 to 128 characters of text.
    """
    _check_length(value, "password", PASSWORD_LENGTH)
    return checked_text(value)


def presented_password(value: str) -> str:
    """Return a password given at login in the form that was hashed; only what never fits is refused.

    Raises:
        ValueError: it is longer than any password, or no text.
    """
    if len(value) > PASSWORD_LENGTH[1]:
        raise ValueError(f"a password has at most {PASSWORD_LENGTH[1]} characters")
    return checked_text(value)


def comparison_key(value: str) -> str:
    """Return what two spellings of one address or name have in common: compatibility and case folded.

    That is NFKC_Casefold of the Unicode standard (3.13, D145) but for characters that names do not have.
    """
    key = unicodedata.normalize("NFD", value)
    for _ in range(2):
        key = unicodedata.normalize("NFKC", key.casefold())
    return key


def login_key(identifier: str) -> tuple[LoginName, str]:
    """Return by what an account is looked up when ``identifier`` is given at login, and its comparison key."""
    if "@" not in identifier:
        return LoginName.USERNAME, comparison_key(identifier.strip())
    try:
        return LoginName.EMAIL, comparison_key(normalise_email(identifier))
    except ValueError:
        return LoginName.EMAIL, comparison_key(identifier)  # fits no account; takes the same way as any other


def _check_length(value: str, what: str, length: tuple[int, int]) -> None:
    least, most = length
    if not least <= len(value) <= most:
        raise ValueError(f"a {what} has {least} to {most} characters, not {len(value)}")


# --- limiting logins ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoginLimit:
    """At most ``attempts`` failed logins in ``window``; the window starts with the first of them."""

    attempts: int
    window: timedelta


def seconds_to_wait(limit: LoginLimit, *, count: int, resets_at: datetime, now: datetime) -> int | None:
    """Return how long the attempt numbered ``count`` must wait, in whole seconds, or None to go on.

    Attempts over the limit do not move ``resets_at``: whoever keeps trying cannot lock an account
    for longer than one window at a time.
    """
    if count <= limit.attempts:
        return None
    return max(1, math.ceil((resets_at - now).total_seconds()))


def address_group(host: str | None) -> str:
    """Return what a client address is limited by: itself, or its /64 network for IPv6.

    One subscriber of IPv6 has at least a /64 to change addresses in.
    """
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def attempt_key(secret: bytes, kind: str, value: str) -> str:
    """Return the key under which attempts are counted: keyed, so that the table names nobody.

    People type passwords into the name field; what they typed must not be stored readably.
    """
    return hmac.new(secret, f"login-attempt:{kind}:{value}".encode(), hashlib.sha256).hexdigest()
