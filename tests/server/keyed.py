"""Mutations with keys over HTTP, and what is seen of them in the log."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, final

import aiohttp
import msgspec
import pytest

from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.log.event_log import NewRecord, Record
from circuit_breaker_server.log.sqlite import SqliteEventLog

ROOT = Path(__file__).parents[2]


@final
class _Error(msgspec.Struct):
    extensions: dict[str, object]


@final
@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    body: bytes
    replayed: bool

    @property
    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.body, type=dict[str, object])

    @property
    def data(self) -> dict[str, dict[str, object]]:
        assert "errors" not in self.json, self.body
        return msgspec.convert(self.json["data"], dict[str, dict[str, object]])

    @property
    def code(self) -> object:
        (error,) = msgspec.convert(self.json["errors"], list[_Error])
        return error.extensions["code"]

    @property
    def cursor(self) -> Cursor:
        resume = msgspec.convert(self.json["extensions"], dict[str, dict[str, str]])["resume"]
        return Cursor.parse(resume["cursor"])


@final
class KeyLog:
    """What is appended in this process.

    :ivar records: each with a key in it, in order.
    :ivar gate: appends of records with a key wait here.
    :ivar appending: how many of them have come so far.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.appending = 0

    @classmethod
    def watch(cls, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Watch the logs of this process until the test is over."""
        seen, append = cls(), SqliteEventLog.append

        async def watched(self: SqliteEventLog, record: NewRecord) -> Record:
            has_key = b'"idempotency"' in record.data
            if has_key:
                seen.appending += 1
                await seen.gate.wait()
            stored = await append(self, record)
            if has_key:
                seen.records.append(stored)
            return stored

        monkeypatch.setattr(SqliteEventLog, "append", watched)
        return seen


async def send(
    url: str,
    query: str,
    variables: Mapping[str, object] | None = None,
    *,
    key: str | None = None,
    accept: str = "*/*",
    **more: object,
) -> Reply:
    headers = {"Accept": accept, "Content-Type": "application/json", "Resume-Version": "1"}
    if key is not None:
        headers["Idempotency-Key"] = key
    body = msgspec.json.encode({"query": query, "variables": variables, **more})
    async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as answer:
        return Reply(answer.status, await answer.read(), answer.headers.get("Idempotency-Replayed") == "true")


@contextlib.asynccontextmanager
async def serving(data_dir: Path, **more: float) -> AsyncIterator[str]:
    settings = ServerSettings(data_dir=data_dir, port=0, log_level="critical", **more)  # type: ignore[arg-type]  # numbers
    async with Server(settings) as server:
        yield server.url


@contextlib.asynccontextmanager
async def unanswering(data_dir: Path) -> AsyncIterator[str]:
    """Run a server that dies by SIGKILL between the record and the answer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.server.unanswered",
        str(data_dir),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
        assert await process.wait() == -9
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
