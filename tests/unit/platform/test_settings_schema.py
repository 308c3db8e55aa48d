"""What the schema of a settings model tells about values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from pixsim7_backend.infrastructure.plugins._settings.schema import DROPPED, Path, SettingsSchema, merge_layers


class Account(BaseModel):
    user: str = "me"
    password: SecretStr | None = None


class Mail(BaseModel):
    kind: Literal["mail"] = "mail"
    account: Account = Account()


class Hook(BaseModel):
    kind: Literal["hook"] = "hook"
    token: SecretBytes


class Model(BaseModel):
    size: Annotated[int, Field(gt=4)]
    ratio: float = 0.5
    names: list[str] = []
    pair: tuple[int, SecretStr] | None = None
    accounts: dict[str, Account] = {}
    channels: list[Annotated[Mail | Hook, Field(discriminator="kind")]] = []
    free: dict[str, Any] = {}
    short_name: str = Field(default="", alias="shortName")
    parent: Model | None = None


SCHEMA = SettingsSchema(Model.model_json_schema())
DOCUMENT = {
    "size": 5,
    "pair": [1, "s1"],
    "accounts": {"x": {"user": "u", "password": "s2"}},
    "channels": [{"kind": "hook", "token": "s3"}, {"kind": "mail", "account": {"password": "s4"}}],
    "parent": {"accounts": {"y": {"password": "s5"}}},
    "free": {"password": "open"},
}


def test_every_secret_is_found_wherever_it_is() -> None:
    """In unions, lists, tuples, dictionaries and models that contain themselves; everything else is left alone."""
    found: dict[Path, Any] = {}

    def note(path: Path, secret: Any) -> str:
        found[path] = secret
        return "*"

    changed = SCHEMA.change_secrets(DOCUMENT, note)
    assert found == {
        ("pair", 1): "s1",
        ("accounts", "x", "password"): "s2",
        ("channels", 0, "token"): "s3",
        ("channels", 1, "account", "password"): "s4",
        ("parent", "accounts", "y", "password"): "s5",
    }
    assert changed["accounts"] == {"x": {"user": "u", "password": "*"}}
    assert changed["free"] == {"password": "open"}


def test_unknown_member_beside_secrets_is_taken_for_one() -> None:
    """It may be a secret under its field's name instead of its alias; a model without secrets has none."""
    assert SCHEMA.change_secrets({"short_name": "x"}, lambda *_: "*") == {"short_name": "*"}
    plain = SettingsSchema(Mail.model_json_schema()["$defs"]["Account"] | {"properties": {"user": {"type": "string"}}})
    assert plain.change_secrets({"other": "x"}, lambda *_: "*") == {"other": "x"}


def test_dropped_secrets_leave_their_object() -> None:
    """A member that a change drops is gone; None is never asked about."""
    document = {"accounts": {"x": {"user": "u", "password": "s"}, "y": {"password": None}}}
    assert SCHEMA.change_secrets(document, lambda *_: DROPPED) == {
        "accounts": {"x": {"user": "u"}, "y": {"password": None}}
    }


def test_unknown_members_are_named() -> None:
    """Free-form objects have no unknown members."""
    document = {"size": 1, "sise": 2, "channels": [{"kind": "mail", "acount": {}}], "free": {"anything": 1}}
    assert SCHEMA.unknown(document) == [("sise",), ("channels", 0, "acount")]


@pytest.mark.parametrize(
    ("names", "text", "expected"),
    [
        (["SIZE"], "7", {"size": 7}),
        (["SIZE"], "seven", {"size": "seven"}),
        (["NAMES"], '["a"]', {"names": ["a"]}),
        (["SHORTNAME"], "12", {"shortName": "12"}),
        (["ACCOUNTS", "X", "USER"], "null", {"accounts": {"x": {"user": "null"}}}),
        (["ACCOUNTS", "X", "PASSWORD"], "1", {"accounts": {"x": {"password": "1"}}}),
        (["PARENT"], "null", {"parent": None}),
        (["PARENT", "RATIO"], "1", {"parent": {"ratio": 1}}),
        (["NOBODY", "KNOWS"], "1", {"nobody": {"knows": "1"}}),
    ],
)
def test_text_of_the_environment(names: list[str], text: str, expected: dict[str, Any]) -> None:
    """Names find their fields in any case; JSON is read where no text is wanted, and only there."""
    document: dict[str, Any] = {}
    SCHEMA.set_text(document, names, text)
    assert document == expected


def test_people_may_spell_as_they_like() -> None:
    """Hyphens and capitals in the configuration file are those of the schema in the end."""
    assert SCHEMA.spell_all({"Short-Name": 1, "shortname": 2}) == {"Short-Name": 1, "shortName": 2}
    assert SCHEMA.spell_all({"Channels": [{"Kind": "mail"}]}) == {"channels": [{"kind": "mail"}]}


@pytest.mark.parametrize(
    ("path", "example"),
    [
        (("size",), 5),
        (("ratio",), 0.5),
        (("names",), []),
        (("accounts", "x", "password"), "secret"),
        (("channels", 0, "kind"), "mail"),
        (("free",), {}),
    ],
)
def test_examples_would_do(path: Path, example: Any) -> None:
    """The default, a constant, the least number, or something of the type."""
    assert SCHEMA.example(SCHEMA.at(path)) == example


def test_layers_are_merged_by_object() -> None:
    """Objects are merged at every depth, all else is replaced; the layers themselves stay as they are."""
    lower, upper = {"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}, "d": {"e": 1}}
    assert merge_layers([lower, upper]) == {"a": {"b": 1, "c": [2]}, "d": {"e": 1}}
    assert lower == {"a": {"b": 1, "c": [1]}, "d": 1}
