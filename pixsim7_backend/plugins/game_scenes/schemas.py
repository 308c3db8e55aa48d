"""What clients send and get: scenes with their nodes and edges."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, model_validator

from pixsim7_backend.storable import JsonObject, RowId, Text

from .conditions import Conditions, Effects
from .rules import find_graph_problems, find_unreachable, name_edges

__all__ = ["Scene", "SceneEdge", "SceneGraph", "SceneNode", "SceneSaved", "SceneSummary", "SceneWarning"]

MAX_NODES = 500
MAX_EDGES = 2000
MAX_SECONDS = 1e9

#: Set by the server only; ignored in input, so that what GET gave can be PUT back.
_SET_BY_SERVER = frozenset({"id", "version", "created_at", "updated_at", "warnings"})

NodeId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:~-]{1,64}$", coerce_numbers_to_str=True, examples=["gate"])]
EdgeId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:~-]{1,140}$", coerce_numbers_to_str=True)]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class SceneNode(_Part):
    """A stop of the playback. ``id`` is the author's and stays as it is, for edges and for sessions."""

    id: NodeId
    asset_id: RowId | None = None
    label: Annotated[Text, Field(max_length=200)] = ""
    loopable: bool = False
    skippable: bool = False
    reveal_choices_at_sec: Seconds | None = None
    meta: JsonObject = Field(default_factory=dict)


class SceneEdge(_Part):
    """A way from one node to another. Without an ``id`` it is named after its nodes, ``from--to``."""

    id: EdgeId
    from_node: NodeId = Field(alias="from")
    to_node: NodeId = Field(alias="to")
    choice_label: Annotated[Text, Field(max_length=500)] = ""
    weight: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 1.0
    reveal_at_sec: Seconds | None = None
    cooldown_sec: Seconds | None = None
    """Wall time during which a session may not take the edge again."""
    conditions: Conditions = ()
    effects: Effects = ()


class _NewNode(SceneNode):
    @model_validator(mode="before")
    @classmethod
    def _ignore_media(cls, values: Any) -> Any:
        return (
            {name: value for name, value in values.items() if name != "media"} if isinstance(values, dict) else values
        )


class _NewEdge(SceneEdge):
    id: EdgeId | None = None  # type: ignore[assignment]  # the graph gives it one


def _name(edges: Sequence[_NewEdge]) -> list[SceneEdge]:
    names = name_edges([(edge.id, edge.from_node, edge.to_node) for edge in edges])
    return [SceneEdge.model_construct(**{**dict(edge), "id": name}) for name, edge in zip(names, edges, strict=True)]


class SceneGraph(BaseModel):
    """A whole scene as its author sends it. Without ``entry_node_id`` it is a draft that cannot be played."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    title: Annotated[Text, Field(min_length=1, max_length=200)]
    description: Annotated[Text, Field(max_length=5000)] = ""
    entry_node_id: NodeId | None = Field(default=None, validation_alias=AliasChoices("entry_node_id", "startNodeId"))
    meta: JsonObject = Field(default_factory=dict)
    nodes: Annotated[list[_NewNode], Field(max_length=MAX_NODES)] = Field(default_factory=list)
    edges: Annotated[list[_NewEdge], Field(max_length=MAX_EDGES), AfterValidator(_name)] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _ignore_what_the_server_sets(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if name not in _SET_BY_SERVER}

    @model_validator(mode="after")
    def _is_sound(self) -> SceneGraph:
        problems = find_graph_problems(self._node_ids(), self._links(), self.entry_node_id)
        if problems:
            raise ValueError("; ".join(problems[:20]))
        return self

    def warnings(self) -> list[SceneWarning]:
        """Return what is allowed but hardly meant: no entry, nodes that nobody can reach."""
        if self.entry_node_id is None:
            return [SceneWarning(kind="no-entry", detail="without entry_node_id the scene cannot be played")]
        lost = find_unreachable(self._node_ids(), self._links(), self.entry_node_id)
        return [
            SceneWarning(kind="unreachable", node_id=node, detail=f"no walk from the entry reaches node {node!r}")
            for node in lost
        ]

    def _node_ids(self) -> list[str]:
        return [node.id for node in self.nodes]

    def _links(self) -> list[tuple[str, str, str]]:
        return [(edge.id or "", edge.from_node, edge.to_node) for edge in self.edges]


class SceneWarning(BaseModel):
    """Something about a graph that its author should look at."""

    kind: Literal["no-entry", "unreachable"]
    node_id: str | None = None
    detail: str


class Media(BaseModel):
    """A picture or clip that a node plays."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    url: str
    duration_sec: float | None = Field(default=None, alias="durationSec")
    tags: list[str] = Field(default_factory=list)


class PlayedNode(BaseModel):
    """A node as it is played; media that is missing or not readable is left out."""

    id: str
    asset_id: str | None
    label: str
    loopable: bool
    skippable: bool
    reveal_choices_at_sec: float | None
    meta: dict[str, Any]
    media: list[Media]


class SceneSummary(BaseModel):
    """A scene without its graph, as lists show it."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    title: str
    description: str
    start_node_id: str | None = Field(alias="startNodeId")
    version: int
    created_at: datetime
    updated_at: datetime


class Scene(SceneSummary):
    """A scene with its graph, ready to be played, or edited and put back."""

    meta: dict[str, Any]
    nodes: list[PlayedNode]
    edges: list[SceneEdge]


class SceneSaved(Scene):
    """What was stored, and what its author should look at."""

    warnings: list[SceneWarning]
