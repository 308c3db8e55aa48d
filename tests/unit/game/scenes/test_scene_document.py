from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from pixsim7_backend.plugins.game_scenes import Comparison
from pixsim7_backend.plugins.game_scenes.conditions import Conditions, Effects
from pixsim7_backend.plugins.game_scenes.schemas import SceneGraph
from tests.transcripts import blocks_of

FILE = Path(__file__).parents[4] / "docs" / "scenes.md"
DOCUMENT = FILE.read_text(encoding="utf-8")


def _block(mark: str) -> Any:
    (code,) = [block.code for block in blocks_of(FILE) if block.language == "json" and block.mark == mark]
    return json.loads(code)


def test_the_documented_graph_is_sound() -> None:
    """The example of docs/scenes.md is accepted without a warning, and its edges get the names it says."""
    graph = SceneGraph.model_validate(_block(""))
    assert graph.warnings() == []
    assert [edge.id for edge in graph.edges] == ["show-pass", "yard--gate"]


@pytest.mark.parametrize(("mark", "schema"), [("<!-- conditions -->", Conditions), ("<!-- effects -->", Effects)])
def test_the_documented_conditions_and_effects_are_all_there_are(mark: str, schema: Any) -> None:
    """Each example is accepted, and no type of condition or effect is left out."""
    adapter = TypeAdapter[Any](schema)
    assert adapter.validate_python(_block(mark))
    known = re.findall(r"'type': \{'const': '(\w+)'", str(adapter.json_schema()))
    assert known
    assert [name for name in known if f"`{name}`" not in DOCUMENT and f'"type": "{name}"' not in DOCUMENT] == []


def test_every_comparison_is_documented() -> None:
    """The table has a row for each ``op``."""
    assert [op for op in Comparison if f"`{op}`" not in DOCUMENT] == []
