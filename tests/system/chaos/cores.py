"""Which core runs what: the server has the first for itself, everything else shares the others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

__all__ = ["SERVER_CORE", "leave_the_server_alone", "on_all_cores"]

# Read once, before anything is pinned: what is pinned sees only its own.
_CORES: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

SERVER_CORE: Final = _CORES[0] if len(_CORES) > 1 else None
"""``None`` where there is only one, or where the system pins nothing."""


def leave_the_server_alone() -> None:
    """Keep this process, and what it starts, off the server's core."""
    if SERVER_CORE is not None:
        os.sched_setaffinity(0, set(_CORES[1:]))


@contextlib.contextmanager
def on_all_cores() -> Iterator[None]:
    """Let what is started in the block run on every core, as brokers do that have machines of their own."""
    if SERVER_CORE is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(_CORES))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
