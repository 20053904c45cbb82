"""Cursors that outlive the program: a restarted one goes on where it stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, final

import msgspec

from circuit_breaker_sdk.callbacks import background_task
from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.observability import log

__all__ = ["CursorKeeper", "CursorStore", "FileCursorStore"]

_SAVE_SECONDS = 0.5
_SAVED_AT_ONCE = 100


class CursorStore(Protocol):
    """Store of cursors, by a key of the application's choice.

    Cursors of up to 100 keys are saved at once; those of one key one after the other.
    """

    async def load(self, key: str) -> str | None:
        """Return the cursor kept under a key, ``None`` if there is none."""
        ...

    async def save(self, key: str, cursor: str) -> None:
        """Keep a cursor under a key; when this returns a restarted program finds it."""
        ...


@final
class FileCursorStore:
    """Cursors in one JSON file, replaced as a whole: a crash leaves the old or the new one.

    Saves that come while the file is written share the next one. One process at a time: the last to write
    wins.

    Example::

        client = Client(url, cursor_store=FileCursorStore("cursors.json"))
        async for resource in client.workflows.subscribe_resource_updates().cursor_key("audit"): ...
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._cursors: dict[str, str] | None = None
        self._lock = asyncio.Lock()
        self._changes = 0
        self._written = 0
        self._writing: asyncio.Future[None] | None = None

    async def load(self, key: str) -> str | None:
        """Return the cursor kept under a key, ``None`` if there is none.

        :raises UsageError: the file cannot be read, or holds something else.
        """
        return (await self._all()).get(key)

    async def save(self, key: str, cursor: str) -> None:
        """Keep a cursor under a key.

        :raises OSError: the file cannot be written.
        """
        cursors = await self._all()
        cursors[key] = cursor
        self._changes += 1
        own = self._changes
        async with self._lock:
            if self._written >= own:
                return  # another one has written it
            if self._writing is not None and not self._writing.done():
                # Its caller was cancelled; a thread cannot be.
                await asyncio.wait((self._writing,))
            await asyncio.sleep(0)  # what else is saved in this turn of the loop goes with it
            changes, data = self._changes, msgspec.json.encode(cursors)
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._write, data)
            await asyncio.shield(self._writing)
            self._written = changes

    async def _all(self) -> dict[str, str]:
        if self._cursors is None:
            async with self._lock:
                if self._cursors is None:
                    self._cursors = await asyncio.to_thread(self._read)
        return self._cursors

    def _read(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{self._path} cannot be read as a file of cursors: {error}") from error

    def _write(self, data: bytes) -> None:
        beside = self._path.with_name(f"{self._path.name}.new")
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)


@final
class _Kept:
    """A subscription whose cursor is kept under a key. Any: of any event type."""

    __slots__ = ("_lock", "_saved", "_store", "delivery", "key")

    def __init__(self, store: CursorStore, key: str, delivery: Delivery[Any]) -> None:
        self._store = store
        self.key = key
        self.delivery = delivery
        self._saved: str | None = None
        self._lock = asyncio.Lock()  # a store need not keep two saves in order

    async def save(self) -> None:
        """Return when the store holds the handled cursor."""
        async with self._lock:
            cursor = self.delivery.consumer.handled
            if cursor is not None and cursor != self._saved:
                await self._store.save(self.key, cursor)
                self._saved = cursor

    @property
    def is_saved(self) -> bool:
        """Whether there is nothing to save."""
        return self.delivery.consumer.handled == self._saved

    @property
    def is_over(self) -> bool:
        """Whether it has ended and is saved: an event that is acknowledged later saves by itself."""
        return self.delivery.state.is_end and self.is_saved


@final
class CursorKeeper:
    """Saves the handled cursors of subscriptions that have a key: now and then, and at their end.

    An event counts as handled when its handler has returned, or the next one was asked for; one that is
    acknowledged is saved at once. What was handled and not saved yet when the program dies comes again: at
    least once, never less.
    """

    def __init__(self, store: CursorStore) -> None:
        self.store = store
        self._kept: dict[str, _Kept] = {}
        self._claimed: set[str] = set()
        self._saving: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Keep a key from others while a subscription with it begins.

        :raises UsageError: a subscription that runs, or begins, has this key.
        """
        other = self._kept.get(key)
        if key in self._claimed or (other is not None and not other.delivery.state.is_end):
            raise UsageError(f"the cursor key {key!r} is in use by a running subscription")
        self._claimed.add(key)
        try:
            yield
        finally:
            self._claimed.discard(key)

    async def load(self, key: str) -> str | None:
        """Return the cursor to go on from.

        :raises UsageError: the store cannot be read.
        """
        return await self.store.load(key)

    def keep(self, key: str, delivery: Delivery[Any]) -> None:
        """Save the cursor of a subscription under its key from now on."""
        if self._closing.is_set():
            raise UsageError("the client is closed: make a new one")
        kept = self._kept[key] = _Kept(self.store, key, delivery)
        delivery.consumer.save_cursor = kept.save
        if self._saving is None:
            self._saving = background_task(self._save_now_and_then(), name="circuit-breaker-cursors")

    async def aclose(self) -> None:
        """Save what is not saved yet, and end. Idempotent."""
        self._closing.set()
        saving = self._saving
        if saving is None:
            return
        try:
            # Not cancelled: what it is writing now is written, and then what is not saved yet.
            await asyncio.wait((saving,))
        finally:
            saving.cancel()

    async def _save_now_and_then(self) -> None:
        is_last = False
        while not is_last:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SAVE_SECONDS):
                    await self._closing.wait()
            is_last = self._closing.is_set()
            await self._save()

    async def _save(self) -> None:
        kept = iter(tuple(self._kept.values()))
        while some := tuple(islice(kept, _SAVED_AT_ONCE)):
            await asyncio.sleep(0)  # most have nothing to save, and a store may not wait
            await asyncio.gather(*(self._save_one(each) for each in some if not each.is_saved))
            for each in some:
                if each.is_over and self._kept.get(each.key) is each:
                    del self._kept[each.key]

    async def _save_one(self, kept: _Kept) -> None:
        try:
            await kept.save()
        except Exception as error:  # noqa: BLE001 (a store may raise anything; it is tried again)
            log(logging.ERROR, "cursor not saved", cursor_key=kept.key, error=repr(error))
