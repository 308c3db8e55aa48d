"""The command ``pixsim7``: one file per group of commands, errors in one sentence, ``--json`` on what reads."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from pixsim7_backend import __version__
from pixsim7_backend.cli import (
    db,
    demo,
    doctor,
    plugins,
    plugins_bisect,
    plugins_check,
    plugins_grants,
    plugins_install,
    plugins_new,
    plugins_settings,
    plugins_switch,
    plugins_top,
    plugins_watch,
    serve,
    users,
)
from pixsim7_backend.cli.output import CommandError, fail, say
from pixsim7_backend.infrastructure.plugins.errors import ConfigurationError, PluginError
from pixsim7_backend.settings import SettingsError

__all__ = ["app", "main"]

app = typer.Typer(
    name="pixsim7",
    epilog="Exit status: 0 done; 1 it could not be done, or something is wrong; 2 wrong usage or settings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve.serve)
app.add_typer(plugins.app)
plugins.app.command()(plugins_switch.enable)
plugins.app.command()(plugins_switch.disable)
plugins.app.add_typer(plugins_grants.app)
plugins.app.command()(plugins_switch.reload)
plugins.app.command()(plugins_switch.retry)
plugins.app.command()(plugins_settings.settings)
plugins.app.command()(plugins_top.top)
plugins.app.command()(plugins_watch.events)
plugins.app.command()(plugins_watch.leaks)
plugins.app.command()(plugins_new.new)
plugins.app.command()(plugins_install.add)
plugins.app.command()(plugins_install.rollback)
plugins.app.command()(plugins_install.remove)
plugins.app.command()(plugins_check.check)
plugins.app.command()(plugins_bisect.bisect)
app.add_typer(db.app)
app.command()(demo.demo)
app.add_typer(users.app)
app.command()(doctor.doctor)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def pixsim7(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The PixSim7 backend and its plugins."""


def main() -> NoReturn:
    """Run the command line; what the user can mend is said in a sentence, without a traceback."""
    try:
        app()
    except CommandError as error:
        fail(str(error))
        sys.exit(error.exit_status)
    except (SettingsError, ConfigurationError) as error:
        fail(str(error))
        sys.exit(2)
    except PluginError as error:
        fail(str(error))
        sys.exit(1)
    except BrokenPipeError:  # `pixsim7 plugins list | head`
        sys.stderr.close()
        sys.exit(0)
    sys.exit(0)
