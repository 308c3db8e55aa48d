"""``python -m benchmarks``: run every benchmark module and print what it measured."""

from __future__ import annotations

import argparse
import importlib
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterator

import benchmarks

from .report import Row, as_json, as_table


def iter_modules() -> Iterator[tuple[str, Callable[[bool], list[Row]]]]:
    """Yield the name and the ``rows`` function of every module that has one."""
    for found in sorted(pkgutil.iter_modules(benchmarks.__path__), key=lambda found: found.name):
        if found.name.startswith("_"):
            continue
        module = importlib.import_module(f"benchmarks.{found.name}")
        if callable(rows := getattr(module, "rows", None)):
            yield found.name, rows


def main() -> int:
    """Measure, print, and return 1 when a number was missed."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", help="modules to run, like 'dispatch'; all when none is named")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: is it alive, not how fast")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    measured: list[Row] = []
    for name, rows in iter_modules():
        if options.only and name not in options.only:
            continue
        found = rows(options.quick)
        measured += found
        if not options.json:
            print(f"\n{name}\n\n{as_table(found)}", flush=True)
    if options.json:
        print(as_json(measured))
    return 0 if all(row.ok for row in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
