"""A position in the streams: which event of which record, in which life of the log."""

from __future__ import annotations

import math
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self, final

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

__all__ = ["Cursor", "Cursors"]

_TEXT = re.compile(r"([0-9a-f]{1,32})\.(0|[1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,8})\.([0-9a-f]{8})", re.ASCII)
_SEALED = re.compile(r"([0-9a-f]{1,32})~([0-9a-f]{32})", re.ASCII)
_PLACE: Final = struct.Struct(">QII")
_MAX_OFFSET: Final = 2**48 - 1
_MAX_INDEX: Final = 2**24 - 1
_OF_PAGE: Final = 2**32 - 1  # where an index stands: no cursor of a stream has it
_NONE_OF_OURS: Final = "not a cursor of this server"


@final
class Cursor(msgspec.Struct, frozen=True):
    """The place just after one event.

    :ivar epoch: names the life of the log.
    :ivar offset: the record; 0 is the start of a log that was never trimmed.
    :ivar index: the event inside the record, from 0.
    :ivar check: of the record: a rewritten log does not pass for the old one.

    Example::

        Cursor("9f2c41d07be3a856", 7, 0, "7d3e9a10")
    """

    epoch: str
    offset: int
    index: int
    check: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` writes, and nothing else.

        :raises ValueError: the text is not a cursor.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(_NONE_OF_OURS)
        epoch, offset, index, check = found.groups()
        return cls(epoch, int(offset), int(index), check)

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}.{self.index}.{self.check}"


@final
class Cursors:
    """Writes and reads the texts of cursors; clients hold them and look not inside.

    With a key they are sealed: one block of AES each, so that a position has the same text for every
    caller, no caller learns from it how much others do, and a text that the server did not write is no
    cursor, but for one in 2^56, which the record's check then refuses.

    :ivar epoch: of the log.
    :param key: 16 or 32 bytes; ``None`` writes cursors that can be read by people.
    :param previous: keys of before, each with the time until which its cursors are read.
    :param clock: seconds since 1970.

    Example::

        cursors = Cursors(log.epoch, key)
        cursors.parse(cursors.of(cursor)) == cursor
    """

    def __init__(
        self,
        epoch: str,
        key: bytes | None = None,
        previous: Sequence[tuple[bytes, float]] = (),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.epoch = epoch
        self._head = f"{epoch}~"
        self._clock = clock
        self._seal: Callable[[bytes], bytes] | None = None
        # How to open what each key has sealed, and until when.
        self._opens: list[tuple[Callable[[bytes], bytes], float]] = []
        if key is not None:
            self._seal = _cipher(key).encryptor().update
            for each, until in ((key, math.inf), *previous):
                self._opens.append((_cipher(each).decryptor().update, until))

    def text(self, offset: int, index: int, check: str) -> str:
        """Write the text of a place in this log, without a cursor."""
        if self._seal is None:
            return f"{self.epoch}.{offset}.{index}.{check}"
        return self._head + self._seal(_PLACE.pack(offset, index, int(check, 16))).hex()

    def of(self, cursor: Cursor) -> str:
        """Write a cursor of this log."""
        return self.text(cursor.offset, cursor.index, cursor.check)

    @property
    def is_sealed(self) -> bool:
        """Whether texts tell nothing."""
        return self._seal is not None

    def seal_place(self, place: int) -> str:
        """Write the cursor of a place in a list such that it is sealed, and no cursor of a stream."""
        return self.text(place, _OF_PAGE, "00000000")

    def open_place(self, text: str) -> int:
        """Read what :meth:`seal_place` writes.

        :raises ValueError: the text is no such cursor.
        """
        found = _SEALED.fullmatch(text)
        if found is not None and found[1] == self.epoch:
            for place, index, check in self._opened(found[2]):
                if (index, check) == (_OF_PAGE, 0) and place <= _MAX_OFFSET:
                    return place
        raise ValueError(_NONE_OF_OURS)

    def parse(self, text: str) -> Cursor:
        """Read a cursor's text; exactly what :meth:`text` writes is accepted, of whatever epoch.

        :raises ValueError: the text is not a cursor.
        """
        if self._seal is None:
            return Cursor.parse(text)
        found = _SEALED.fullmatch(text)
        if found is None:
            raise ValueError(_NONE_OF_OURS)
        epoch, block = found.groups()
        for place, index, check in self._opened(block):
            # Of another life of the log nothing but that is told: what its key was is not known.
            if epoch != self.epoch or (place <= _MAX_OFFSET and index <= _MAX_INDEX):
                return Cursor(epoch, place, index, f"{check:08x}")
        raise ValueError(_NONE_OF_OURS)

    def _opened(self, block: str) -> Iterator[tuple[int, int, int]]:
        """Open a block with each key whose time is not over, the present one first."""
        for unseal, until in self._opens:
            if until == math.inf or self._clock() < until:
                yield _PLACE.unpack(unseal(bytes.fromhex(block)))


def _cipher(key: bytes) -> Cipher[modes.ECB]:
    return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 (one block, and no two are the same)
