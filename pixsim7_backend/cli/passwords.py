"""Passwords for commands: never from the command line, which others can see."""

from __future__ import annotations

import os
import sys

import typer

from pixsim7_backend.cli.output import CommandError

VARIABLE = "PIXSIM7_ADMIN_PASSWORD"


def admin_password(*, is_new: bool = False, other_ways: str = f"set {VARIABLE}") -> str:
    """Return the password from the environment, else ask for it; a new one is asked for twice.

    Raises:
        CommandError: there is no terminal to ask at; the text names the ``other_ways``.
    """
    if from_environment := os.environ.get(VARIABLE):
        return from_environment
    if not sys.stdin.isatty():
        raise CommandError(f"there is no terminal to ask for the password; {other_ways}", exit_status=2)
    answer: str = typer.prompt("Password", hide_input=True, confirmation_prompt=is_new)
    return answer
