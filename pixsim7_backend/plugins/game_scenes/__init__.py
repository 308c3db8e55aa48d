"""The public face of game-scenes: scene graphs, and the schema of conditions and effects that sessions evaluate."""

from .conditions import (
    AllOf,
    AnyOf,
    ChangeRelationship,
    ClearFlag,
    Comparison,
    Condition,
    Effect,
    FlagCondition,
    IncrementFlag,
    Not,
    RelationshipCondition,
    SetFlag,
    SetRelationship,
)
from .manifest import manifest, router
from .media import MediaPort, PlayableMedia, check_assets
from .schemas import SceneEdge
from .store import PlayGraph, get_graph, missing_scenes

__all__ = [
    # the plugin
    "manifest",
    "router",
    # scenes
    "PlayGraph",
    "SceneEdge",
    "missing_scenes",
    "get_graph",
    # conditions and effects
    "AllOf",
    "AnyOf",
    "ChangeRelationship",
    "ClearFlag",
    "Comparison",
    "Condition",
    "Effect",
    "FlagCondition",
    "IncrementFlag",
    "Not",
    "RelationshipCondition",
    "SetFlag",
    "SetRelationship",
    # the port "media"
    "MediaPort",
    "PlayableMedia",
    "check_assets",
]
