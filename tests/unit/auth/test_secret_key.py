from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pixsim7_backend.plugins.auth import secret_key
from pixsim7_backend.plugins.auth.secret_key import (
    FILE_NAME,
    WeakSecretError,
    find_weakness,
    resolve_secret,
    stored_secret,
)

STRONG = "kJ8-vW2_pQ7xZt4mNc6bRf1yLd9sHg3aTe5uIo0w"


def test_the_setting_wins(tmp_path: Path) -> None:
    """With SECRET_KEY set no file is read or made."""
    (tmp_path / FILE_NAME).write_text("something else")
    assert resolve_secret(STRONG, debug=False, data_dir=tmp_path) == STRONG
    assert resolve_secret(STRONG, debug=False, data_dir=tmp_path / "absent") == STRONG
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    "weak",
    ["secret", "changeme", "your-secret-key-change-in-production-1234", "CHANGE_ME_CHANGE_ME_CHANGE_ME_CHANGE_ME",
     "dev-secret-key-dev-secret-key-dev-secret", "x" * 64, "0123456789" * 3, "short-but-R4ndom!"],
)  # fmt: skip
def test_a_known_or_short_secret_is_refused_outside_debug(
    weak: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody could sign tokens with it: the text says what is wrong and the way out, and never the secret."""
    with pytest.raises(WeakSecretError, match=r"SECRET_KEY .*; set it to the output of") as caught:
        resolve_secret(weak, debug=False, data_dir=tmp_path)
    assert weak not in str(caught.value)
    assert resolve_secret(weak, debug=True, data_dir=tmp_path) == weak
    assert "only because DEBUG is on" in caplog.text
    assert f" {weak} " not in caplog.text


@pytest.mark.parametrize(
    "strong", [STRONG, "0f" * 3 + "d41d8cd98f00b204e9800998ecf8427e", "correct horse battery staple, twice over"]
)
def test_long_unknown_secrets_are_taken(strong: str) -> None:
    """Base64, hexadecimal and long phrases pass."""
    assert find_weakness(strong) is None


def test_without_the_setting_one_is_made_and_kept(tmp_path: Path) -> None:
    """The secret is random, private to its owner, and the same at the next start."""
    directory = tmp_path / "made" / "when needed"
    first = resolve_secret("", debug=False, data_dir=directory)
    assert find_weakness(first) is None
    assert resolve_secret(None, debug=False, data_dir=directory) == first
    assert stat.S_IMODE((directory / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in directory.iterdir()] == [FILE_NAME]
    assert stored_secret(tmp_path / "elsewhere") != first


def test_many_threads_agree(tmp_path: Path) -> None:
    """Whoever is first makes it; nobody ever reads half of one."""
    with ThreadPoolExecutor(16) as threads:
        secrets = set(threads.map(lambda _: stored_secret(tmp_path), range(64)))
    assert len(secrets) == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_four_processes_agree(tmp_path: Path) -> None:
    """Four workers that start at once sign with one secret."""
    code = (
        "import pathlib, runpy, sys; make = runpy.run_path(sys.argv[1])['stored_secret'];"
        "sys.stdin.readline(); print(make(pathlib.Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, secret_key.__file__, str(tmp_path)]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert len({worker.communicate(timeout=60)[0] for worker in workers}) == 1


def test_a_file_open_to_others_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Loose permissions are tightened, and the log says so."""
    path = tmp_path / FILE_NAME
    path.write_text(STRONG)
    path.chmod(0o644)
    assert stored_secret(tmp_path) == STRONG
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "readable by others" in caplog.text
    assert STRONG not in caplog.text


@pytest.mark.parametrize("content", ["", "short", "\n" * 100, "secret" * 10])
def test_a_file_without_a_secret_is_refused(tmp_path: Path, content: str) -> None:
    """An empty or foolish file is an error that names the file, never a weak key."""
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(WeakSecretError, match="does not hold a secret; delete it"):
        stored_secret(tmp_path)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """A link in place of the file could lead to anything."""
    (tmp_path / "other").write_text(STRONG)
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        stored_secret(tmp_path)
