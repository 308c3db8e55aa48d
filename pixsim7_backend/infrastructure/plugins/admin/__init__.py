"""The operator's ways in: routes for the host to mount behind its own guard, and the control socket.

::

    app.include_router(admin_router(guard=only_admins, prefix="/admin/plugins"))

    control = ControlServer(manager, data_dir / "control.sock")
    await control.start()
"""

from __future__ import annotations

from pixsim7_backend.infrastructure.plugins._control.server import ControlServer
from pixsim7_backend.infrastructure.plugins._control.socket import SOCKET_NAME, has_server, is_supported, request

from .problems import problem_of
from .routes import admin_router

__all__ = ["SOCKET_NAME", "ControlServer", "admin_router", "has_server", "is_supported", "problem_of", "request"]
