"""What one confined plugin uses, over all its generations and processes: counted, and read."""

from __future__ import annotations

from pixsim7_backend.infrastructure.plugins._attribution.figures import ConfinedFigures

from .broker import Meter
from .supervisor import JailSupervisor

__all__ = ["JailUsage"]


class JailUsage:
    """Of one plugin; a restart and a reload go on counting, and give no new share of the minute.

    ``meter`` counts its calls, ``starts`` its processes, ``crashes`` those of their ends that nobody asked for.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.starts = 0
        self.crashes = 0

    def note_crash(self, _crash: object) -> None:
        """Count an end that nobody asked for."""
        self.crashes += 1

    def read(self, supervisor: JailSupervisor) -> ConfinedFigures:
        """Return the figures, with those of the process that this supervisor keeps."""
        process, meter = supervisor.process, self.meter
        use = process.read_use() if process is not None else None
        return ConfinedFigures(
            phase=supervisor.phase,
            starts=self.starts,
            crashes=self.crashes,
            cpu_seconds=use.cpu if use else None,
            memory_bytes=use.memory if use else None,
            threads=use.threads if use else None,
            scratch_bytes=process.scratch.size if process is not None and process.scratch else None,
            calls=dict(meter.total),
            calls_this_minute={name: amount for name, amount in meter.minute.items() if amount},
            calls_per_minute=meter.limits,
            calls_refused=dict(meter.refused),
        )
