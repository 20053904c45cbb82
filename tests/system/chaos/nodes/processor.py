"""How busy the machine is, and with what: figures of an experiment mean little while others use its cores."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, final

__all__ = ["BusyCores"]

_IDLE: Final = (3, 4)
"""The places of what is idle, or waits for a disk, in the first line of ``/proc/stat``."""
_OF_PROCESS: Final = slice(11, 13)
"""The places of a process's own seconds behind its name in ``/proc/PID/stat``."""


@final
class BusyCores:
    """Counts busy cores from its making on: of the machine, and of some processes."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        self._all, self._own, self._clock = self._look()

    def since(self) -> dict[str, float]:
        """Return how many cores were busy on average, with these processes and with anything else."""
        everything, own, clock = self._look()
        seconds = clock - self._clock
        ours = (own - self._own) / seconds
        others = (everything - self._all) / seconds - ours
        return {"own": round(ours, 2), "others": max(0.0, round(others, 2))}

    def _look(self) -> tuple[float, float, float]:
        ticks = os.sysconf("SC_CLK_TCK")
        fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = sum(count for place, count in enumerate(fields) if place not in _IDLE)
        own = 0
        for pid in self._pids:
            of_process = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            own += sum(map(int, of_process[_OF_PROCESS]))
        return busy / ticks, own / ticks, os.times().elapsed
