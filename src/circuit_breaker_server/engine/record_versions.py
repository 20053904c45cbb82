"""The versions of the log's records that this program reads and writes, and the steps between them.

A version is an integer. A change of a body that the program before it could not read makes a new one: raise
:data:`VERSION`, and add a step up and a step down. All nodes of a cluster write in the log's *format*, which
is one of these versions; see :mod:`.nodes.state`.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["DOWNCASTERS", "FIRST_FORMAT", "UPCASTERS", "VERSION", "CannotStepDown", "Step"]

VERSION = 1
"""The newest version that this program reads, and the one in which its bodies are defined."""

FIRST_FORMAT = 1
"""The format of a log in which no record says otherwise."""

Step = Callable[[dict[str, object]], dict[str, object]]
"""Makes the body of an adjacent version of one, without changing what it was given."""


class CannotStepDown(Exception):
    """A body, or a value in it, does not exist in the version below. The text says which."""


UPCASTERS: dict[int, Step] = {}
"""By version: makes the body of the next version of it."""

DOWNCASTERS: dict[int, Step] = {}
"""By version: makes the body of the version below of it, or raises :class:`CannotStepDown`.

A value that is lost on the way down and up again is refused without that. What the server writes by itself,
not for a caller, has to be writable in the version below: nobody could be told of the refusal.
"""
