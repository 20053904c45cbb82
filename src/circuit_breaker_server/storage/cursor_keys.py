"""The keys that seal cursors: the present one, and those of before for as long as their cursors are good."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Final, NamedTuple, final

import msgspec

from circuit_breaker_server.storage.cluster_key import ClusterKey
from circuit_breaker_server.storage.private_files import replace_private_file
from circuit_breaker_server.storage.secret_store import key_file

__all__ = ["CURSOR_KEY_FILE", "PREVIOUS_CURSOR_KEYS_FILE", "CursorKeys", "PreviousKey", "rotate_cursor_key"]

CURSOR_KEY_FILE: Final = "cursors.key"
PREVIOUS_CURSOR_KEYS_FILE: Final = "cursors.previous.json"

_KEY_BYTES: Final = 32


@final
class PreviousKey(msgspec.Struct, frozen=True):
    """A key of before.

    :ivar until: cursors that it has sealed are good until then; seconds since 1970, or infinity.
    """

    key: bytes
    until: float

    def __repr__(self) -> str:
        return f"PreviousKey(until={self.until})"


@final
class CursorKeys(NamedTuple):
    """The keys of a data directory.

    Example::

        keys = CursorKeys.read(Path("data"))
    """

    present: bytes
    previous: tuple[PreviousKey, ...] = ()

    @classmethod
    def read(cls, data_dir: Path, cluster_key: ClusterKey | None = None) -> CursorKeys:
        """Read the keys; the present one is made if it is missing.

        :param cluster_key: the present key comes from it, and none is made; cursors of its other keys are
            good, and of the directory's own where it has one.
        :raises OSError: a file cannot be read or written.
        :raises ValueError: a file does not hold keys; the text names it.
        """
        path = data_dir / CURSOR_KEY_FILE
        previous = _previous(data_dir / PREVIOUS_CURSOR_KEYS_FILE)
        if cluster_key is not None:
            others = (PreviousKey(each.cursor_key, math.inf) for each in cluster_key.others)
            previous = (*others, *previous)
        if cluster_key is not None and not path.exists():
            return cls(cluster_key.cursor_key, previous)
        present = key_file(path, lambda: os.urandom(_KEY_BYTES))
        if len(present) != _KEY_BYTES:
            raise ValueError(f"{path}: is no key, which has {_KEY_BYTES} bytes; restore it from a backup")
        if cluster_key is not None:
            return cls(cluster_key.cursor_key, (PreviousKey(present, math.inf), *previous))
        return cls(present, previous)

    def __repr__(self) -> str:
        return f"CursorKeys(previous={self.previous!r})"


def rotate_cursor_key(data_dir: Path, *, valid_seconds: float) -> float:
    """Make a new key; return until when cursors of the present one are good. No server may run.

    Keys of before whose time is over are forgotten.

    :raises OSError: a file cannot be read or written.
    :raises ValueError: as :meth:`CursorKeys.read`.
    """
    keys, now = CursorKeys.read(data_dir), time.time()
    until = now + valid_seconds
    kept = [each for each in keys.previous if each.until > now and each.key != keys.present]
    # Before the new key: a crash between leaves the present one in both, which changes nothing.
    previous = msgspec.json.encode([PreviousKey(keys.present, until), *kept])
    replace_private_file(data_dir / PREVIOUS_CURSOR_KEYS_FILE, previous)
    replace_private_file(data_dir / CURSOR_KEY_FILE, os.urandom(_KEY_BYTES))
    return until


def _previous(path: Path) -> tuple[PreviousKey, ...]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[PreviousKey, ...])
    except FileNotFoundError:
        return ()
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: does not hold keys of before; restore it from a backup") from error
