"""How well this machine confines plugins, asked without loading what finds it out before that."""

from __future__ import annotations

from .level import ConfinementReport


def probe_machine() -> ConfinementReport:
    """Return what a jail would be confined with here; found out once, which takes some hundredths of a second."""
    from .confine.probe import probe_level

    return probe_level()
