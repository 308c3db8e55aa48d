"""Secret settings: sealed where they are stored, masked where they are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pixsim7_backend.infrastructure.plugins.errors import SecretStorageError
from pixsim7_backend.merge_patch import merge_patch

from .schema import DROPPED, Path, SettingsSchema, dotted
from .spelling import variable

__all__ = [
    "MASK",
    "SEALED",
    "Cipher",
    "change_each",
    "mask",
    "mask_stored",
    "mentions_seal",
    "merge_stored",
    "open_all",
    "redactor",
    "sealer",
]

MASK = "**********"
SEALED = "$encrypted"
"""The only member of an object that stands for a secret."""
_SHORTEST = 4
"""Letters of a secret that is looked for in texts; a shorter one would be found in ordinary words."""


class Cipher(Protocol):
    """Encrypts secrets for storage; ``context`` says whose, and what belongs to one does not open as another."""

    def encrypt(self, text: str, *, context: str) -> str: ...

    def decrypt(self, token: str, *, context: str) -> str:
        """Return the text; raise ValueError when it cannot be had."""


def mask(_path: Path, secret: Any) -> Any:
    """Return what is shown in place of a secret; that it is empty is no secret."""
    return MASK if secret != "" else ""


def mask_stored(stored: Any) -> Any:
    """Return stored settings with what is sealed masked."""
    if isinstance(stored, Mapping):
        return MASK if stored.keys() == {SEALED} else {name: mask_stored(each) for name, each in stored.items()}
    return [mask_stored(each) for each in stored] if isinstance(stored, list) else stored


def mentions_seal(value: Any) -> bool:
    """Tell whether a document has a member of the platform's own name anywhere."""
    if isinstance(value, Mapping):
        return SEALED in value or any(map(mentions_seal, value.values()))
    return isinstance(value, list) and any(map(mentions_seal, value))


def change_each(value: Any, change: Callable[[Path, Any], Any], path: Path = ()) -> Any:
    """Return a document with everything in it but its objects, and None, replaced by what ``change`` returns."""
    if isinstance(value, Mapping):
        members = ((name, change_each(each, change, (*path, name))) for name, each in value.items())
        return {name: each for name, each in members if each is not DROPPED}
    return None if value is None else change(path, value)


def sealer(cipher: Cipher | None, plugin_id: str) -> Callable[[Path, Any], Any]:
    """Return what seals a plugin's secrets; it raises SecretStorageError where it cannot."""

    def seal(path: Path, secret: Any) -> Any:
        instead = f"set {variable(plugin_id, path)} in the environment instead"
        if cipher is None:
            problem = "there is no cipher, and secrets are never stored in clear"
            way_out = f"{instead}, or pass `cipher=` to init_plugin_manager"
            raise SecretStorageError(plugin=plugin_id, field=dotted(path), problem=problem, way_out=way_out)
        try:
            return {SEALED: cipher.encrypt(json.dumps(secret), context=f"{plugin_id}:{dotted(path)}")}
        except (ValueError, OSError) as error:
            problem = f"it cannot be encrypted ({error})"
            raise SecretStorageError(plugin=plugin_id, field=dotted(path), problem=problem, way_out=instead) from error

    return seal


def open_all(cipher: Cipher | None, plugin_id: str, stored: Any, path: Path = ()) -> Any:
    """Return stored settings with their secrets decrypted; SecretStorageError names one that cannot be."""
    if isinstance(stored, Mapping) and stored.keys() == {SEALED}:
        return _open_one(cipher, plugin_id, str(stored[SEALED]), path)
    if isinstance(stored, Mapping):
        return {name: open_all(cipher, plugin_id, each, (*path, name)) for name, each in stored.items()}
    if isinstance(stored, list):
        return [open_all(cipher, plugin_id, each, (*path, i)) for i, each in enumerate(stored)]
    return stored


def _open_one(cipher: Cipher | None, plugin_id: str, token: str, path: Path) -> Any:
    try:
        if cipher is None:
            raise ValueError("there is no cipher")  # noqa: TRY301 - one text for all that keeps it shut
        return json.loads(cipher.decrypt(token, context=f"{plugin_id}:{dotted(path)}"))
    except (ValueError, OSError) as error:
        raise SecretStorageError(
            plugin=plugin_id,
            field=dotted(path),
            problem=f"what is stored cannot be decrypted ({error})",
            way_out="bring back the former SECRET_KEY (or key file), or set the secret anew",
        ) from error


def redactor(schema: SettingsSchema, values: Mapping[str, Any]) -> Callable[[str], str]:
    """Return what masks the secrets among these values in a text that the plugin's own code wrote."""
    secrets: set[str] = set()

    def note(_path: Path, secret: Any) -> Any:
        if isinstance(secret, (Mapping, list)):
            for each in secret.values() if isinstance(secret, Mapping) else secret:
                note((), each)
        elif isinstance(secret, str) and len(secret) >= _SHORTEST:
            secrets.update((secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]))
        return secret

    schema.change_secrets(values, note)

    def redact(text: str) -> str:
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text

    return redact


def merge_stored(stored: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """Return stored settings after a merge patch (RFC 7386); what is sealed is one value in both, no object."""
    merged: dict[str, Any] = _as_objects(merge_patch(_as_tokens(stored), _as_tokens(patch)))
    return merged


class _Token(str):
    """A sealed value."""

    __slots__ = ()


def _as_tokens(value: Any) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {SEALED}:
            return _Token(value[SEALED])
        return {name: _as_tokens(each) for name, each in value.items()}
    return value


def _as_objects(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_objects(each) for name, each in value.items()}
    return {SEALED: str(value)} if isinstance(value, _Token) else value
