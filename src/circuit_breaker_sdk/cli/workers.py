"""``circuit-breaker serve --workers N``: several processes on one port, kept alive by this one."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, final

from circuit_breaker_sdk.cli.child_processes import end_with_parent
from circuit_breaker_sdk.cli.embedded_broker import BrokerMissingError, EmbeddedBroker
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import Stop, print_error, print_marker
from circuit_breaker_server import ServerSettings
from circuit_breaker_server.settings.sources import Configuration, SettingsError

__all__ = ["serve_workers"]

_AGAIN_SECONDS: Final = 1.0
"""Before a process that has ended is started again."""
_BROKER_SECONDS: Final = 10.0


class _CannotStart(Exception):
    """The workers cannot be started; the text says why."""


async def serve_workers(
    stop: Stop, read: Callable[[], Configuration], arguments: Sequence[str], count: int
) -> int:
    """Run workers until the event is set; then stop them, SIGTERM letting each drain.

    One line on stdout for each that is ready, and one when all are.

    :param arguments: of ``serve``, as they were given: each worker gets them too.
    """
    try:
        settings = read().settings
        with _held_port(settings) as port:
            return await _Workers(settings, arguments, count, port.getsockname()[1]).run(stop)
    except (SettingsError, _CannotStart, BrokerMissingError) as error:
        print_error(error)
        return ExitCode.USAGE
    except OSError as error:
        print_error(f"{error.filename or settings.host}: {error.strerror}")
        return ExitCode.UNREACHABLE


def _held_port(settings: ServerSettings) -> socket.socket:
    """Take the port, without listening: all workers share it, and nobody else gets it meanwhile."""
    if (exposure := settings.exposure()) is not None:
        raise _CannotStart(exposure)
    found = socket.getaddrinfo(settings.host or None, settings.port, type=socket.SOCK_STREAM)
    family, kind, proto, _, address = found[0]
    held = socket.socket(family, kind, proto)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError as error:
        held.close()
        raise _CannotStart(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    return held


@final
class _Workers:
    """The processes: a broker where the settings name none, and the workers."""

    def __init__(self, settings: ServerSettings, arguments: Sequence[str], count: int, port: int) -> None:
        self._settings = settings
        self._arguments = arguments
        self._count = count
        self._port = port
        self._broker: EmbeddedBroker | None = None
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._ready: set[str] = set()
        self._failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._one_is_ready = asyncio.Event()

    async def run(self, stop: Stop) -> int:
        """Start all, keep them alive, stop them."""
        data = self._settings.data_dir
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        shared = self._shared_options()
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        try:
            if self._broker is not None:
                tasks.append(loop.create_task(self._keep("broker", self._broker.command)))
                await self._until_answers(int(self._broker.url.rpartition(":")[2]))
            for number in range(1, self._count + 1):
                tasks.append(loop.create_task(self._keep(f"worker {number}", self._command(number, shared))))
                # The others only when one has come up: what keeps one from it keeps all, and is said once.
                if number == 1 and await self._is_over(stop, self._one_is_ready):
                    break
            else:
                await self._is_over(stop)
        finally:
            await self._stop(stop, tasks)
        if self._failed.done():
            return self._failed.result()
        return ExitCode.INTERRUPTED if stop.again.is_set() else ExitCode.OK

    async def _is_over(self, stop: Stop, event: asyncio.Event | None = None) -> bool:
        """Wait for the signal to stop, a failure, or an event; tell whether it was not the event."""
        events = [stop] if event is None else [stop, event]
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(each.wait()) for each in events]
        await asyncio.wait([*waits, self._failed], return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return stop.is_set() or self._failed.done()

    def _shared_options(self) -> list[str]:
        """Return what all workers are told: the log, its key, the port."""
        cluster, data = self._settings.cluster, self._settings.data_dir
        options = ["--port", str(self._port), "--set", "network.reuse_port=true", "--workers", "1"]
        if cluster.urls:
            if cluster.key_file is None:
                raise _CannotStart("--workers with --log needs --cluster-key-file; docs/cluster.md")
            return options
        if (data / "events.db").exists():
            raise _CannotStart(
                f"{data} holds the event log of one process; serve it without --workers, or name another "
                "directory"
            )
        self._broker = EmbeddedBroker(data / "broker")
        key = cluster.key_file or _made_key(data / "cluster.key")
        return [
            *options,
            *("--log", self._broker.url, "--cluster-key-file", str(key)),
            *("--set", f"cluster.token_file={self._broker.token_file}"),
            *("--set", f"cluster.monitoring_url={self._broker.monitoring_url}"),
        ]

    def _command(self, number: int, shared: Sequence[str]) -> list[str]:
        own = ["--node", f"{self._settings.cluster.node}-{number}"]
        own += ["--data", str(self._settings.data_dir / f"worker-{number}")]
        if self._settings.metrics_port:
            own += ["--metrics-port", str(self._settings.metrics_port + number - 1)]
        return [sys.executable, "-m", "circuit_breaker_sdk.cli", "serve", *self._arguments, *shared, *own]

    async def _until_answers(self, port: int) -> None:
        async with asyncio.timeout(_BROKER_SECONDS):
            while not self._failed.done():
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)

    async def _keep(self, name: str, command: Sequence[str]) -> None:
        """Run a process, and again whenever it ends; one that never was ready is the end of all."""
        while True:
            is_worker = name != "broker"
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if is_worker else asyncio.subprocess.DEVNULL,
                stderr=None if is_worker else asyncio.subprocess.DEVNULL,
                # In a group of its own: Ctrl-C at the terminal is for this program, which passes it on.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
            self._processes[name] = process
            if process.stdout is not None:
                async for line in process.stdout:
                    self._told(name, line.decode(errors="replace").rstrip())
            else:
                self._ready.add(name)
            status = await process.wait()
            if name not in self._ready:
                if not self._failed.done():
                    self._failed.set_result(status if status > 0 else ExitCode.UNREACHABLE)
                return
            print_marker(name, f"ended with status {status}; it is started again")
            await asyncio.sleep(_AGAIN_SECONDS)

    def _told(self, name: str, line: str) -> None:
        if not line.startswith("ready: "):
            print_marker(name, line)
            return
        is_first = name not in self._ready
        self._ready.add(name)
        self._one_is_ready.set()
        sys.stdout.write(f"{name}: ready\n")
        if is_first and sum(each != "broker" for each in self._ready) == self._count:
            where = line.partition(" (")[0]
            sys.stdout.write(
                f"{where} ({self._count} workers; data in {self._settings.data_dir}; stop with Ctrl-C)\n"
            )
        sys.stdout.flush()

    async def _stop(self, stop: Stop, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Stop the workers, then the broker; at once where the signal has come twice."""
        # First who would start them again.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        broker = self._processes.pop("broker", None)
        workers = list(self._processes.values())
        _send(workers, signal.SIGTERM if stop.is_termination else signal.SIGINT)
        ended = asyncio.gather(*(process.wait() for process in workers))
        again = asyncio.ensure_future(stop.again.wait())
        await asyncio.wait((ended, again), return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        _send(workers, signal.SIGKILL)
        await ended
        if broker is not None:
            _send([broker], signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BROKER_SECONDS):
                    await broker.wait()
            _send([broker], signal.SIGKILL)


def _send(processes: Sequence[asyncio.subprocess.Process], number: signal.Signals) -> None:
    for process in processes:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


def _made_key(path: Path) -> Path:
    """Make the key that the workers share, where there is none."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path
