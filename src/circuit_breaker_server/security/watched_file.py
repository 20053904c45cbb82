"""Reload a file when it changes: the server checks it ten times a second."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar, final

from circuit_breaker_server.logs import get_logger

__all__ = ["FileRefused", "Listeners", "WatchedFile", "WatchedSource", "read_bounded"]

T = TypeVar("T")

_DOUBTFUL_SECONDS: Final = 1.0

logger = get_logger("watched_file")


class FileRefused(Exception):
    """A file cannot be read or used. The text names the file, the place and what to do, and no secret."""


@dataclass(frozen=True, slots=True)
class _Signature:
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> _Signature:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class _Reading(Generic[T]):
    signature: _Signature
    is_steady: bool
    is_doubtful: bool
    digest: bytes
    found: T | FileRefused | None
    """``None``: it reads as it did before."""


@final
class Listeners(Generic[T]):
    """Callbacks for each new value. A callback that fails does not keep the value from the others."""

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[T], object]] = {}

    def add(self, callback: Callable[[T], object]) -> Callable[[], None]:
        """Add a callback; the function that is returned removes it (idempotent)."""
        place = object()
        self._callbacks[place] = callback

        def remove() -> None:
            self._callbacks.pop(place, None)

        return remove

    def tell(self, value: T) -> None:
        """Call every callback, in the order in which they were added; a failure is logged."""
        for callback in list(self._callbacks.values()):
            try:
                callback(value)
            except Exception as error:  # the next one may be a stream that has to end
                logger.error("listener_failed", error=type(error).__name__, exc_info=True)


class WatchedSource(Protocol):
    """Something that is read whenever it has changed; whoever makes it says what is called with it."""

    async def start(self) -> None:
        """Hand on what is there, and again whenever it has changed."""
        ...

    async def check_now(self) -> None:
        """Look now; when this returns what is there is handed on, or refused."""
        ...

    async def aclose(self) -> None:
        """Hand on nothing more. Idempotent."""
        ...


@final
class WatchedFile(Generic[T]):
    """Reads a file whenever it has changed, and hands on what it says.

    What cannot be used (absent, unreadable, refused by ``parse``) changes nothing: what was handed on last
    stays in force. One error is logged for each version that is refused; every change is tried again.

    Example::

        file = WatchedFile(Path("policy.toml"), parse=Policy.parse, adopt=adopt, max_bytes=1024)
        await file.start()
        await file.aclose()
    """

    def __init__(
        self,
        path: Path,
        *,
        parse: Callable[[bytes], T],
        adopt: Callable[[T], object],
        max_bytes: int,
        may_be_missing: bool = False,
        is_written_whole: bool = False,
        interval_seconds: float = 0.1,
    ) -> None:
        """Hold what to do; :meth:`start` does it.

        :param parse: called in a thread; raises :class:`FileRefused`.
        :param adopt: called in a turn of the loop with what was parsed; it does not raise.
        :param may_be_missing: whether there need be no file at the start.
        :param is_written_whole: whether writers always replace the file at once. If not, a change is read
            only when two looks in a row have seen the same of it: an editor may be in the midst of writing.
        """
        self._path = path
        self._parse = parse
        self._adopt = adopt
        self._max_bytes = max_bytes
        self._may_be_missing = may_be_missing
        self._is_written_whole = is_written_whole
        self._interval = interval_seconds
        self._looking = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._seen: _Signature | None = None
        self._read: _Signature | None = None
        self._is_doubtful = False
        self._digest: bytes | None = None
        self._complaint: object = None

    async def start(self) -> None:
        """Read the file, then watch it until :meth:`aclose`.

        :raises FileRefused: what it says cannot be used, or it cannot be read.
        """
        try:
            reading = await asyncio.to_thread(self._load, None)
        except FileNotFoundError as error:
            if not self._may_be_missing:
                raise FileRefused(_unreadable(self._path, error)) from error
        except OSError as error:
            raise FileRefused(_unreadable(self._path, error)) from error
        else:
            if isinstance(reading.found, FileRefused):
                raise reading.found
            self._take(reading)
        self._watching = asyncio.create_task(self._watch(), name=f"watch {self._path.name}")

    async def check_now(self) -> None:
        """Look now, and take what is there, however young: it is handed on or refused when this returns."""
        await self._look(at_once=True)

    async def aclose(self) -> None:
        """Watch no more. Idempotent."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait((watching,))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._look(at_once=self._is_written_whole)

    async def _look(self, *, at_once: bool) -> None:
        async with self._looking:
            try:
                await self._look_alone(at_once=at_once)
            except OSError as error:
                self._complain(str(error), _unreadable(self._path, error))
            except Exception as error:  # noqa: BLE001 (a watch that has died would not see that a key is revoked)
                self._complain(repr(error), f"{self._path}: reading it failed: {type(error).__name__}")

    async def _look_alone(self, *, at_once: bool) -> None:
        seen = _signature(self._path)
        is_settled = at_once or seen == self._seen
        self._seen = seen
        if not is_settled:
            return
        if seen is None:
            # Without a first version there is nothing to miss.
            if self._read is not None:
                self._complain("absent", f"{self._path}: is gone; what it said stays in force")
            return
        if seen == self._read and not self._is_doubtful:
            return
        reading = await asyncio.to_thread(self._load, self._digest)
        if reading.is_steady or at_once:
            self._take(reading)

    def _load(self, known: bytes | None) -> _Reading[T]:
        with self._path.open("rb") as file:
            before, now = os.fstat(file.fileno()), time.time()
            data = file.read(self._max_bytes + 1)
            after = os.fstat(file.fileno())
        signature = _Signature.of(before)
        digest = hashlib.sha256(data).digest()
        found: T | FileRefused | None = None
        if digest != known:
            try:
                if len(data) > self._max_bytes:
                    raise FileRefused(f"{self._path}: is over {self._max_bytes} bytes")  # noqa: TRY301
                found = self._parse(data)
            except FileRefused as error:
                found = error
        return _Reading(
            signature,
            is_steady=signature == _Signature.of(after),
            # Clocks of files are coarse: what is written now may leave the signature as it is.
            is_doubtful=abs(now - before.st_mtime) < _DOUBTFUL_SECONDS,
            digest=digest,
            found=found,
        )

    def _take(self, reading: _Reading[T]) -> None:
        self._read, self._is_doubtful = reading.signature, reading.is_doubtful
        self._digest = reading.digest
        if isinstance(reading.found, FileRefused):
            self._complain(reading.digest, str(reading.found))
        elif reading.found is not None:
            self._complaint = None
            self._adopt(reading.found)
        elif self._complaint != reading.digest:
            self._complaint = None  # it was gone or unreadable, and is back as it was

    def _complain(self, about: object, text: str) -> None:
        if about != self._complaint:
            self._complaint = about
            logger.error("file_refused", file=str(self._path), why=text)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a file for a command.

    :raises FileRefused: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise FileRefused(_unreadable(path, error)) from error
    if len(data) > max_bytes:
        raise FileRefused(f"{path}: is over {max_bytes} bytes")
    return data


def _signature(path: Path) -> _Signature | None:
    try:
        return _Signature.of(os.stat(path))
    except FileNotFoundError:
        return None


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path}: cannot be read ({error.strerror}); give a file that this user may read"
