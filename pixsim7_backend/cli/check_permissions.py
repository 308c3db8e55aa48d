"""Tables that a plugin asks for although nobody opens them: looked up in a process of its own.

It loads the code of the plugins that may open them, which is to meet neither the plugin that is tried nor its process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pixsim7_backend.cli.plugins_grants import known_models
from pixsim7_backend.infrastructure.plugins._conformance import Finding
from pixsim7_backend.infrastructure.plugins._conformance.verdicts import warning
from pixsim7_backend.infrastructure.plugins._grants.deciding import requested_by
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate
from pixsim7_backend.resources import enforcer_of
from pixsim7_backend.settings import load_settings

_SECONDS = 60.0
_RESULT = "permissions.json"


def useless_permissions(place: Path, plugin: Candidate, directories: Sequence[str]) -> list[Finding]:
    """Return what the plugin asks for that nobody opens; nothing where that cannot be found out."""
    asked = requested_by(plugin.manifest)
    if not directories or not any(each.family == "db" and each.items for each in asked):
        return []
    request = {"plugin": plugin.id, "directories": list(directories), "permissions": sorted(map(str, asked))}
    command = [sys.executable, "-m", __name__, str(place), json.dumps(request)]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=True)  # noqa: S603  # our own module
    except subprocess.SubprocessError:
        return []
    where = str(plugin.source.manifest_file)
    way = "ask for what is open, or let the owner of the table open it (`community_read`)"
    return [warning(each, where=where, way_out=way) for each in json.loads((place / _RESULT).read_text())]


def main(place: Path, request: str) -> None:
    """Write down which of the permissions are of no use."""
    asked = json.loads(request)
    settings = load_settings(data_dir=place)
    grants = Grants.from_json({"granted": asked["permissions"]})
    with known_models(settings, asked["directories"], disabled=[asked["plugin"]]):
        told = enforcer_of(settings).look(grants)
    (place / _RESULT).write_text(json.dumps([each for found in told for each in found.warnings]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
