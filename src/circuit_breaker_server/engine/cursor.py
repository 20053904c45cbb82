"""A position in the streams: which event of which record, in which life of the log."""

from __future__ import annotations

import re
from typing import Self, final

import msgspec

__all__ = ["Cursor", "cursor_text"]

_TEXT = re.compile(r"([0-9a-f]{1,32})\.(0|[1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,8})\.([0-9a-f]{8})", re.ASCII)


@final
class Cursor(msgspec.Struct, frozen=True):
    """The place just after one event; clients hold its text and look not inside.

    :ivar epoch: names the life of the log.
    :ivar offset: the record; 0 is the start of a log that was never trimmed.
    :ivar index: the event inside the record, from 0.
    :ivar check: of the record: a rewritten log does not pass for the old one.

    Example::

        Cursor.parse(str(cursor)) == cursor
    """

    epoch: str
    offset: int
    index: int
    check: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a cursor's text; exactly what ``str`` writes is accepted.

        :raises ValueError: the text is not a cursor.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError("not a cursor of this server")
        epoch, offset, index, check = found.groups()
        return cls(epoch, int(offset), int(index), check)

    def __str__(self) -> str:
        return cursor_text(self.epoch, self.offset, self.index, self.check)


def cursor_text(epoch: str, offset: int, index: int, check: str) -> str:
    """Write a cursor's text, without a cursor."""
    return f"{epoch}.{offset}.{index}.{check}"
