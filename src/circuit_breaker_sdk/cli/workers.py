"""``circuit-breaker serve --workers N``: several processes on one port, kept alive by this one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, final

from circuit_breaker_sdk.cli.child_processes import end_with_parent
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import Stop, print_error, print_marker
from circuit_breaker_server import ServerSettings, logs
from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.log.shared_file.log_server import LogServer
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.net.listener import listen_for_metrics
from circuit_breaker_server.settings.sources import Configuration, SettingsError
from circuit_breaker_server.start_errors import ServerStartError
from circuit_breaker_server.storage.private_files import make_private_directory

__all__ = ["serve_workers"]

_AGAIN_SECONDS: Final = 1.0
"""Before a process that has ended is started again."""
_LAST_PORT: Final = 65_535


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
            _check_metrics_ports(settings, count)
            return await _Workers(settings, arguments, count, port.getsockname()[1]).run(stop)
    except (SettingsError, _CannotStart) as error:
        print_error(error)
        return ExitCode.USAGE
    except (LogError, ServerStartError) as error:
        print_error(error)
        return ExitCode.UNREACHABLE
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


def _metrics_port(settings: ServerSettings, worker: int) -> int | None:
    """Return the metrics port of a worker; ``None`` without one, 0 for a free one."""
    return settings.metrics_port + worker - 1 if settings.metrics_port else settings.metrics_port


def _check_metrics_ports(settings: ServerSettings, count: int) -> None:
    """Listen on the metrics ports of all workers for a moment, for a worker cannot tell which one it is.

    :raises ServerStartError: one cannot be used.
    """
    for number in range(1, count + 1):
        if port := _metrics_port(settings, number):
            if port > _LAST_PORT:
                raise _CannotStart(f"the metrics port of worker {number} would be {port}: choose a lower one")
            listen_for_metrics(settings, port, worker=number).close()


@final
class _Workers:
    """The workers. Their event log is written by this process, unless the settings name brokers."""

    def __init__(self, settings: ServerSettings, arguments: Sequence[str], count: int, port: int) -> None:
        self._settings = settings
        self._arguments = arguments
        self._count = count
        self._port = port
        self._log_server: LogServer | None = None
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._ready: set[str] = set()
        self._up: set[str] = set()
        self._failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._one_is_ready = asyncio.Event()

    async def run(self, stop: Stop) -> int:
        """Start all, keep them alive, stop them."""
        settings = self._settings
        async with contextlib.AsyncExitStack() as parts:
            if settings.cluster.urls:
                if settings.cluster.key_file is None:
                    raise _CannotStart("--workers with --log needs --cluster-key-file; docs/cluster.md")
                make_private_directory(settings.data_dir)
            else:
                logs.configure(settings.log_level, settings.log_format)
                log = await SqliteEventLog.open(settings.data_dir)
                parts.push_async_callback(log.aclose)
                self._log_server = LogServer(log)
                parts.push_async_callback(self._log_server.aclose)
            # Each worker makes its own directory in it, and would make this one for everybody.
            make_private_directory(settings.data_dir / "workers")
            return await self._run(stop)

    async def _run(self, stop: Stop) -> int:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        try:
            for number in range(1, self._count + 1):
                tasks.append(loop.create_task(self._keep(number)))
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

    def _command(self, number: int, log_socket: socket.socket | None) -> list[str]:
        settings = self._settings
        own = ["--port", str(self._port), "--set", "network.reuse_port=true", "--workers", "1"]
        own += ["--node", f"{settings.cluster.node}-{number}"]
        if log_socket is None:
            own += ["--data", str(settings.data_dir / "workers" / f"{settings.cluster.node}-{number}")]
        else:
            own += ["--set", f"cluster.log_socket={log_socket.fileno()}"]
        if port := _metrics_port(settings, number):
            own += ["--metrics-port", str(port)]
        return [sys.executable, "-m", "circuit_breaker_sdk.cli", "serve", *self._arguments, *own]

    async def _keep(self, number: int) -> None:
        """Run a worker, and again whenever it ends; one that never was ready is the end of all."""
        name = f"worker {number}"
        while True:
            process = await self._start(number)
            self._processes[name] = process
            assert process.stdout is not None  # noqa: S101 (it is a pipe)
            async for line in process.stdout:
                self._told(name, line.decode(errors="replace").rstrip())
            status = await process.wait()
            # What the log holds and this program cannot read stops all of them, one after the other.
            is_hopeless = status == ExitCode.FAIL_STOP and name not in self._up
            if name not in self._ready or is_hopeless:
                if not self._failed.done():
                    self._failed.set_result(status if status > 0 else ExitCode.UNREACHABLE)
                return
            self._up.discard(name)
            print_marker(name, f"ended with status {status}; it is started again")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _start(self, number: int) -> asyncio.subprocess.Process:
        theirs: socket.socket | None = None
        if self._log_server is not None:
            ours, theirs = socket.socketpair()
            await self._log_server.serve(ours)
        try:
            return await asyncio.create_subprocess_exec(
                *self._command(number, theirs),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=() if theirs is None else (theirs.fileno(),),
                # In a group of its own: Ctrl-C at the terminal is for this program, which passes it on.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        finally:
            if theirs is not None:
                theirs.close()

    def _told(self, name: str, line: str) -> None:
        if not line.startswith("ready: "):
            print_marker(name, line)
            return
        is_first = name not in self._ready
        self._ready.add(name)
        self._up.add(name)
        self._one_is_ready.set()
        sys.stdout.write(f"{name}: ready\n")
        if is_first and len(self._ready) == self._count:
            where = line.partition(" (")[0]
            sys.stdout.write(
                f"{where} ({self._count} workers; data in {self._settings.data_dir}; stop with Ctrl-C)\n"
            )
        sys.stdout.flush()

    async def _stop(self, stop: Stop, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Stop the workers; at once where the signal has come twice."""
        # First who would start them again.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        workers = list(self._processes.values())
        _send(workers, signal.SIGTERM if stop.is_termination else signal.SIGINT)
        ended = asyncio.gather(*(process.wait() for process in workers))
        again = asyncio.ensure_future(stop.again.wait())
        await asyncio.wait((ended, again), return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        _send(workers, signal.SIGKILL)
        await ended


def _send(processes: Sequence[asyncio.subprocess.Process], number: signal.Signals) -> None:
    for process in processes:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
