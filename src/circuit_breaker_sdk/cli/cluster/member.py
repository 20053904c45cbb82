"""One process of the cluster, a node or a broker: started, killed, and started again."""

from __future__ import annotations

import asyncio
import enum
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

import aiohttp

from circuit_breaker_sdk.cli.child_processes import end_with_parent
from circuit_breaker_sdk.errors import CircuitBreakerError

__all__ = ["Kind", "Member", "MemberFailedError", "State"]

_START_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_AGAIN_SECONDS: Final = 1.0
_OK: Final = 200


class Kind(enum.StrEnum):
    """The role of a process."""

    NODE = "node"
    BROKER = "broker"


class State(enum.StrEnum):
    """The state of a process."""

    KILLED = "killed"
    STARTING = "starting"
    LIVE = "live"


class MemberFailedError(CircuitBreakerError):
    """A process of the cluster does not come up.

    :ivar name: which one.
    :ivar reason: what it said last.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(name, reason)

    def __str__(self) -> str:
        return f"{self.name} does not come up: {self.reason or 'it says nothing'}"


@final
class Member:
    """A process, and how it is.

    :ivar kills: how often it was killed.
    :ivar ends: how often it ended by itself.
    :param ready_url: answers with status 200 once the process is ready.
    :param output: the file that takes what the process writes.

    Example::

        member = Member(Kind.NODE, "a", command, ready_url=url, output=file, environment={}, http=session)
        await member.start()
        member.kill()
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        command: Sequence[str],
        *,
        ready_url: str,
        output: Path,
        environment: Mapping[str, str],
        http: aiohttp.ClientSession,
    ) -> None:
        self.kind = kind
        self.name = name
        self.state: State = State.KILLED
        self.kills = self.ends = 0
        self._command = command
        self._ready_url = ready_url
        self._output = output
        self._environment = environment
        self._http = http
        self._process: subprocess.Popen[bytes] | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def has_ended(self) -> bool:
        """Whether it was live, and has ended by itself."""
        return self.state is State.LIVE and self._process is not None and self._process.poll() is not None

    @property
    def last_words(self) -> str:
        """The last line that it has written."""
        lines = self._output.read_text(errors="replace").split("\n") if self._output.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "")

    async def start(self) -> None:
        """Start the process and wait until it is ready; where it ends before, start it again.

        :raises MemberFailedError: it is not ready within a minute.
        """
        self.state = State.STARTING
        try:
            async with asyncio.timeout(_START_SECONDS):
                while True:
                    self._run()
                    if await self._is_ready():
                        break
                    await asyncio.sleep(_AGAIN_SECONDS)
        except TimeoutError:
            raise MemberFailedError(str(self), self.last_words) from None
        self.state = State.LIVE

    def kill(self) -> None:
        """Send SIGKILL, as a crash, and wait for the end. Idempotent."""
        self.state = State.KILLED
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _run(self) -> None:
        with self._output.open("ab") as output:
            # In a group of its own: Ctrl-C at the terminal is for this program, which then ends it.
            self._process = subprocess.Popen(  # noqa: S603 (the command is put together here)
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 (this program has one thread that matters)
            )

    async def _is_ready(self) -> bool:
        """Wait until the process is ready; false where it has ended."""
        while self._process is not None and self._process.poll() is None:
            try:
                async with self._http.get(self._ready_url) as answer:
                    if answer.status == _OK:
                        return True
            except (aiohttp.ClientError, OSError):
                pass  # it does not listen yet, or does not answer in time
            await asyncio.sleep(_LOOK_SECONDS)
        return False
