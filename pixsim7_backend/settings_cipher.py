"""Encrypts plugins' secret settings for storage; what is stored is useless without the key."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pixsim7_backend.kept_secret import kept_secret
from pixsim7_backend.settings import Settings

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

__all__ = ["FernetCipher", "settings_cipher"]

KEY_FILE = "settings_key"
_SALT = b"pixsim7 plugin settings"


class FernetCipher:
    """Fernet (AES-128-CBC with HMAC-SHA256) under a key for each context, derived from one secret (HKDF-SHA256).

    ``find_secret`` is asked when something is first encrypted or decrypted.
    """

    def __init__(self, find_secret: Callable[[], str]) -> None:
        self._find_secret = find_secret

    def encrypt(self, text: str, *, context: str) -> str:
        return self._fernet(context).encrypt(text.encode()).decode("ascii")

    def decrypt(self, token: str, *, context: str) -> str:
        """Return the text; raise ValueError when the token was made with another secret or for another context."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet(context).decrypt(token.encode()).decode()
        except InvalidToken as error:
            raise ValueError("it was encrypted with another key") from error

    def _fernet(self, context: str) -> Fernet:
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        derive = HKDF(algorithm=SHA256(), length=32, salt=_SALT, info=context.encode())
        return Fernet(base64.urlsafe_b64encode(derive.derive(self._find_secret().encode())))


def settings_cipher(settings: Settings) -> FernetCipher:
    """Return the backend's cipher: its secret is ``SECRET_KEY``, else a random one kept under ``data_dir``."""
    return FernetCipher(lambda: settings.secret_key.get_secret_value() or _kept(settings.data_dir))


def _kept(data_dir: Path) -> str:
    return kept_secret(data_dir / KEY_FILE)
