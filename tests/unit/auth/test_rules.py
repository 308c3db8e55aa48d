from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsim7_backend.plugins.auth import rules
from pixsim7_backend.plugins.auth.rules import LoginLimit, LoginName

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given_text", "stored"),
    [
        ("ann@example.com", "ann@example.com"),
        ("  Ann@EXAMPLE.com ", "Ann@example.com"),
        ("\uff41\uff4e\uff4e@example.com", "ann@example.com"),
        ("ann@xn--bcher-kva.de", "ann@bücher.de"),
        ("Ann@BÜCHER.de", "Ann@bücher.de"),
    ],
)
def test_an_address_is_stored_in_one_form(given_text: str, stored: str) -> None:
    """Width, outer blanks and the domain's case and encoding make no second address."""
    assert rules.normalise_email(given_text) == stored


@pytest.mark.parametrize(
    "text",
    ["", "ann", "ann@", "@example.com", "a b@example.com", "ann@example.com\x00", "ann@exa\nmple.com",
     "ann\ud800@x.org", "a" * 250 + "@example.com", "ann@" + "x" * 300 + ".com"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    """Malformed, over-long and control-character input raises ValueError, nothing else."""
    with pytest.raises(ValueError, match=r"."):
        rules.normalise_email(text)


@pytest.mark.parametrize("name", ["ann", "Ann_1.x-y", "Zoë", "ßtrasse", "花子さん", "a" * 50])
def test_usernames_of_letters_in_any_script_are_taken(name: str) -> None:
    """Letters and digits of any script, dots, hyphens and underscores make a name."""
    assert rules.normalise_username(f" {name} ") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "a" * 51,
        "a b c",
        "ann@example.com",
        "an\x00n",
        "_ann",
        "ann\u200b",
        "ann\u202e",
        "ann/..",
        "a\ud800b",
        "\ufdfa" * 4,
    ],
)
def test_other_usernames_are_refused(name: str) -> None:
    """An @ (it could pass for an address), invisible characters and names of a wrong length are refused."""
    with pytest.raises(ValueError, match=r"."):
        rules.normalise_username(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ann", "aNN"), ("ANN", "\uff41\uff4e\uff4e"), ("straße", "STRASSE"), ("\ufb01na", "FINA"), ("é", "É")],
)
def test_spellings_of_one_name_have_one_key(one: str, other: str) -> None:
    """Case, width, ligatures and composition do not make a different name."""
    assert rules.comparison_key(one) == rules.comparison_key(other)


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_key_is_its_own_key(text: str) -> None:
    """Comparing keys twice over changes nothing, so what was found once is found again."""
    key = rules.comparison_key(text)
    assert rules.comparison_key(key) == key


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_normalised_username_stays_what_it_is(text: str) -> None:
    """A stored name, typed in again, is the same name."""
    try:
        name = rules.normalise_username(text)
    except ValueError:
        return
    assert rules.normalise_username(name) == name
    assert "@" not in name


@pytest.mark.parametrize(
    ("identifier", "name", "key"),
    [
        ("Ann@Example.COM", LoginName.EMAIL, "ann@example.com"),
        ("ann@xn--bcher-kva.de", LoginName.EMAIL, "ann@bücher.de"),
        ("ANN", LoginName.USERNAME, "ann"),
        ("@", LoginName.EMAIL, "@"),
        ("' OR 1=1 --", LoginName.USERNAME, "' or 1=1 --"),
    ],
)
def test_an_at_sign_tells_addresses_from_names(identifier: str, name: LoginName, key: str) -> None:
    """What is typed at login is looked up in one column only, also where it fits no account."""
    assert rules.login_key(identifier) == (name, key)


@pytest.mark.parametrize("password", ["short12", "x" * 129, "nul\x00inside", "new\nline-password", "half\ud800-a-pair"])
def test_unusable_new_passwords_are_refused(password: str) -> None:
    """A password has 8 to 128 characters of text."""
    with pytest.raises(ValueError, match=r"."):
        rules.checked_password(password)


def test_a_password_is_the_same_from_every_keyboard() -> None:
    """Composed and decomposed letters hash alike, at registration and at login."""
    composed, decomposed = "pässword-1", "pa\u0308ssword-1"
    assert rules.checked_password(decomposed) == rules.presented_password(composed) == composed


def test_a_short_password_may_be_presented() -> None:
    """Login does not tell what a password looks like: a short one is simply wrong, an endless one is refused."""
    assert rules.presented_password("x") == "x"
    with pytest.raises(ValueError, match="at most 128"):
        rules.presented_password("x" * 129)


@pytest.mark.parametrize("name", ["👩\u200d🚀 Ann", "Ann of Example"])
def test_display_names_are_free_text(name: str) -> None:
    """Blanks and joined emoji are fine in a display name."""
    assert rules.normalise_display_name(name) == name


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\u202eb", "a\u200bb", "a\x1b[31mb"])
def test_display_names_that_deceive_are_refused(name: str) -> None:
    """Direction marks, invisible and control characters could make a name look like another."""
    with pytest.raises(ValueError, match=r"."):
        rules.normalise_display_name(name)


@pytest.mark.parametrize(
    ("count", "left", "wait"), [(1, 300, None), (3, 1, None), (4, 300, 300), (4, 0.2, 1), (1000, 59.01, 60)]
)
def test_attempts_over_the_limit_wait_for_the_window(count: int, left: float, wait: int | None) -> None:
    """Up to the limit nobody waits; beyond it, until the window that the first failure opened is over."""
    limit = LoginLimit(3, timedelta(seconds=300))
    assert rules.seconds_to_wait(limit, count=count, resets_at=NOW + timedelta(seconds=left), now=NOW) == wait


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::99", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("testclient", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_addresses_are_grouped_by_subscriber(host: str | None, group: str) -> None:
    """An IPv6 subscriber cannot get more attempts by changing addresses inside the own network."""
    assert rules.address_group(host) == group


def test_attempt_keys_tell_nothing_and_never_collide() -> None:
    """Kind, value and secret all count, and the value cannot be read from the key."""
    inputs = itertools.product((b"a", b"b"), ("x", "y"), ("1", "2"))
    assert len({rules.attempt_key(*each) for each in inputs}) == 8
    assert "hunter2" not in rules.attempt_key(b"s", "account", "hunter2")
