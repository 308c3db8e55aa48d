"""The public face of game-sessions, for plugins that change what a play-through remembers.

Read-modify-write, safe under concurrent requests on both databases::

    session = get_locked(db, session_id, user)              # 404 when it is not the user's
    outcome = rules.pickpocket(session.state(), ...)        # pure: takes a SessionState, returns a new one
    store(db, session, outcome.state, kind="pickpocket", detail={...})

``store`` enters the change into the history and emits ``session:updated`` once it is committed.
``change(db, session_id, user, apply, kind=...)`` is the same in one call.
"""

from .manifest import manifest, router
from .models import GameSession
from .state import SessionState
from .storage import WorldsPort, change, get_locked, get_owned, store

__all__ = [
    # the plugin
    "manifest",
    "router",
    # sessions
    "GameSession",
    "SessionState",
    "change",
    "get_locked",
    "get_owned",
    "store",
    # the port "worlds"
    "WorldsPort",
]
