"""Encrypting settings, and the secret that is kept for it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from pixsim7_backend.kept_secret import kept_secret
from pixsim7_backend.settings import Settings
from pixsim7_backend.settings_cipher import FernetCipher, settings_cipher

KEY = "thirty-two bytes or more of a secret"


def test_what_is_encrypted_opens_with_the_same_secret_and_context_only() -> None:
    """Another secret, another context or a changed token is a ValueError that does not show the text."""
    cipher = FernetCipher(lambda: KEY)
    token = cipher.encrypt("hunter2", context="shop:api_key")
    assert "hunter2" not in token
    assert token != cipher.encrypt("hunter2", context="shop:api_key")
    assert FernetCipher(lambda: KEY).decrypt(token, context="shop:api_key") == "hunter2"
    for other, text, context in (
        (FernetCipher(lambda: KEY + "x"), token, "shop:api_key"),
        (cipher, token, "shop:other"),
        (cipher, token[:-4] + "AAA=", "shop:api_key"),
        (cipher, "not a token", "shop:api_key"),
        (cipher, "ünicode", "shop:api_key"),
    ):
        with pytest.raises(ValueError, match="it was encrypted with another key"):
            other.decrypt(text, context=context)


def test_secret_key_wins_over_the_kept_one(tmp_path: Path) -> None:
    """With SECRET_KEY no file is made; without it one is, and is the same at the next start."""
    given = settings_cipher(Settings(data_dir=tmp_path / "a", secret_key=SecretStr(KEY)))
    token = given.encrypt("x", context="c")
    assert not (tmp_path / "a").exists()
    assert FernetCipher(lambda: KEY).decrypt(token, context="c") == "x"
    made = settings_cipher(Settings(data_dir=tmp_path / "b")).encrypt("y", context="c")
    assert settings_cipher(Settings(data_dir=tmp_path / "b")).decrypt(made, context="c") == "y"


def test_kept_secret_is_its_owners_alone(tmp_path: Path) -> None:
    """It is made once, 0600 in a directory of 0700, and nothing else stays."""
    path = tmp_path / "data" / "key"
    first = kept_secret(path)
    assert len(first) >= 64
    assert kept_secret(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"short\n", b"", bytes(range(128, 228))], ids=["short", "empty", "binary"])
def test_file_that_is_no_secret_is_an_error(content: bytes, tmp_path: Path) -> None:
    """It is not replaced: something was encrypted with what was there."""
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="does not hold a secret; restore it from a backup"):
        kept_secret(path)
    assert path.read_bytes() == content


def test_kept_secret_that_others_may_read_is_closed_to_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Loose permissions are tightened, and the log names the file, never the secret."""
    path = tmp_path / "key"
    secret = kept_secret(path)
    path.chmod(0o644)
    assert kept_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"{path} was readable by others (644)" in caplog.text
    assert secret not in caplog.text


def test_link_in_place_of_the_kept_secret_is_not_followed(tmp_path: Path) -> None:
    """Neither one to a file nor one to nowhere."""
    kept_secret(tmp_path / "elsewhere")
    for target in ("elsewhere", "nowhere"):
        (tmp_path / target[:3]).symlink_to(tmp_path / target)
        with pytest.raises(OSError, match="symbolic links"):
            kept_secret(tmp_path / target[:3])
