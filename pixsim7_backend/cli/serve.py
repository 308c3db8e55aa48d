"""``pixsim7 serve``: run the backend."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from pixsim7_backend.cli.output import CommandError
from pixsim7_backend.logging import configure_logging
from pixsim7_backend.quick_imports import quick_imports
from pixsim7_backend.settings import Settings, load_settings

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (setting HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (setting PORT).")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of server processes (setting WORKERS).")] = None,
    reload_plugins: Annotated[
        bool, typer.Option("--reload-plugins", help="Replace plugins as their files change (setting RELOAD_PLUGINS).")
    ] = False,
    safe_mode: Annotated[
        bool, typer.Option("--safe-mode", help="Start the required plugins only (setting SAFE_MODE).")
    ] = False,
) -> None:
    """Run the backend until it is interrupted."""
    import uvicorn

    if reload_plugins:
        os.environ["RELOAD_PLUGINS"] = "true"
    if safe_mode:
        os.environ["SAFE_MODE"] = "true"  # where the processes of the workers find it
    given = {"host": host, "port": port, "workers": workers}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    if workers is not None:
        os.environ["WORKERS"] = str(workers)  # each of them has to know that there are others
    check_address(settings)
    configure_logging(settings.log_format, settings.log_level)
    config = uvicorn.Config(
        "pixsim7_backend.cli.serve:make_worker_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )
    if not (_run_workers(config) if settings.workers > 1 else _run(config)):
        raise typer.Exit(1)


def _run(config: uvicorn.Config) -> bool:
    """Serve in this process until a signal; return whether the app ever started."""
    from uvicorn import Server

    server = Server(config)
    # Uvicorn raises both when everything is closed: the one after Ctrl-C, the other after a failed start.
    with suppress(KeyboardInterrupt, SystemExit):
        server.run()
    return server.started


def _run_workers(config: uvicorn.Config) -> bool:
    """Serve in processes of their own until a signal; return whether the app started in all of them."""
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    supervisor = Multiprocess(config, sockets=[config.bind_socket()])
    supervisor.run()
    return all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)


def make_worker_app() -> FastAPI:
    """Return the app of one worker process, which has to set up its own logging first."""
    with quick_imports():
        from pixsim7_backend.main import app

    settings = app.state.settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    return app


def check_address(settings: Settings) -> None:
    """Refuse an address that cannot be listened on, before anything is started.

    Raises:
        CommandError: the port is taken or not allowed, or the host is none of this machine's.
    """
    try:
        addresses = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        raise CommandError(
            f"{settings.host!r} is not a host name or address; use --host 127.0.0.1, or 0.0.0.0 for every interface"
        ) from None
    family, kind, protocol, _, address = addresses[0]
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise CommandError(_why_not(error, settings)) from None


def _why_not(error: OSError, settings: Settings) -> str:
    where = f"port {settings.port} on {settings.host}"
    if error.errno == errno.EADDRINUSE:
        other = settings.port + 1 if settings.port < 65535 else 8000
        return f"{where} is in use; stop the other program, or choose another port: pixsim7 serve --port {other}"
    if error.errno == errno.EACCES:
        return f"{where} needs privileges; choose a port from 1024 up: pixsim7 serve --port 8000"
    return f"cannot listen on {where}: {error.strerror}; use --host 127.0.0.1, or 0.0.0.0 for every interface"
