"""Runs in every jail of the backend before its plugin is imported: its answers read like all others."""

from __future__ import annotations

from fastapi import FastAPI

from pixsim7_backend.problems import install_problem_handlers

__all__ = ["install"]


def install(app: FastAPI) -> None:
    """Answer errors as problems, as the host does."""
    install_problem_handlers(app)
