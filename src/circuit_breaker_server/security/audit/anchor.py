"""The anchor: the last seal that is on the disk, kept where the log is not, so that a cut end is found."""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

import msgspec

from circuit_breaker_server.security.audit.paths import AuditLogError, sync_directory
from circuit_breaker_server.security.audit.records import GENESIS, Seal

__all__ = ["Anchor"]

_MAX_BYTES: Final = 1024


@final
class _Read(msgspec.Struct, frozen=True):
    seq: int
    head: str


@final
@dataclass(frozen=True, slots=True)
class Anchor:
    """The end of a log as it was at some time.

    :ivar seq: of the last line; 0 before the first.
    :ivar mac: the seal of that line.

    Example::

        Anchor.read(Path("data.audit-anchor"), Seal(key))
    """

    seq: int = 0
    mac: str = GENESIS.decode()

    @classmethod
    def read(cls, path: Path, seal: Seal) -> Self | None:
        """Read the file; ``None`` if there is none.

        :raises AuditLogError: it cannot be read, was edited, or is sealed with another key.
        """
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AuditLogError(f"{path}: the anchor cannot be read ({error.strerror})") from error
        try:
            read = msgspec.json.decode(text, type=_Read)
            anchor = cls(read.seq, read.head)
            whole = hmac.compare_digest(text, anchor._text(seal))
        except (msgspec.DecodeError, UnicodeError):
            whole = False
        if not whole:
            raise AuditLogError(f"{path}: the anchor was edited, or sealed with another key")
        return anchor

    def write(self, path: Path, seal: Seal) -> None:
        """Replace the file at once and durably.

        :raises OSError: it could not be written; the file before is whole still.
        """
        new = path.with_name(f"{path.name}.new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(self._text(seal))
            file.flush()
            os.fsync(fd)
        new.replace(path)
        sync_directory(path.parent)

    def _text(self, seal: Seal) -> bytes:
        body = b'{"seq":%d,"head":"%b"' % (self.seq, self.mac.encode())
        return b'%b,"mac":"%b"}\n' % (body, seal.anchor(body))
