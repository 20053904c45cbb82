"""``circuit-breaker serve``: run a server until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from circuit_breaker_sdk._version import __version__
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import (
    Stop,
    give_up_stdout,
    print_error,
    print_marker,
    settle_memory,
    until_stopped,
)
from circuit_breaker_server import RecordNotAppliedError, Server, ServerSettings, ServerStartError
from circuit_breaker_server.admission.connection_limits import is_loopback
from circuit_breaker_server.canary import Canary
from circuit_breaker_server.logs import process_lines
from circuit_breaker_server.settings.live import Change
from circuit_breaker_server.settings.sources import (
    Configuration,
    Given,
    SettingsError,
    configure,
    from_assignments,
    from_environment,
    from_file,
)

__all__ = ["follow", "print_settings", "serve", "settings_reader"]


def settings_reader(
    config: Path | None, assignments: Sequence[str], options: Mapping[str, tuple[str, object]]
) -> Callable[[], Configuration]:
    """Return what reads the settings: the file, the environment, ``--set``, other options, the last first.

    :param options: by option, the setting that it sets and its value; ``None``: it was not given.
    """
    given = {name: Given(value, option) for option, (name, value) in options.items() if value is not None}

    def read() -> Configuration:
        return configure(
            {} if config is None else from_file(config),
            from_environment(os.environ),
            from_assignments(assignments),
            given,
        )

    return read


def print_settings(read: Callable[[], Configuration]) -> int:
    """Print each setting as a line of TOML, with where it comes from; return the exit status."""
    try:
        configuration = read()
    except SettingsError as error:
        print_error(error)
        return ExitCode.USAGE
    try:
        sys.stdout.write("\n".join(configuration.lines()) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        give_up_stdout()
    return ExitCode.OK


async def serve(stop: Stop, read: Callable[[], Configuration]) -> int:
    """Serve until the event is set; then end every connection properly and close the log.

    SIGTERM drains the server before: connections are closed one by one, over some seconds. SIGHUP lets it
    read its settings again.

    One line on stdout says when the server is ready, and where: ``ready: http://127.0.0.1:4000/graphql …``.
    One on stderr before it warns where no authentication is configured.

    :param read: reads the settings, at the start and on SIGHUP.
    """
    try:
        settings = read().settings
    except SettingsError as error:
        print_error(error)
        return ExitCode.USAGE
    if (exposure := settings.exposure()) is not None:
        # Not UNREACHABLE as what else stops the start: no later try would do better.
        print_error(exposure)
        return ExitCode.USAGE
    with process_lines():
        return await _serve(stop, read, settings)


async def follow(stop: Stop, read: Callable[[], Configuration]) -> int:
    """Follow the log of a cluster as its canary, until the event is set or a record cannot be read."""
    try:
        settings = read().settings
    except SettingsError as error:
        print_error(error)
        return ExitCode.USAGE
    with process_lines():
        try:
            canary = await Canary.start(settings)
        except RecordNotAppliedError as error:
            print_error(error)
            return ExitCode.FAIL_STOP
        except ServerStartError as error:
            print_error(error)
            return ExitCode.UNREACHABLE
        try:
            sys.stdout.write(
                f"canary: release {__version__} follows the log from offset {canary.offset} on\n"
            )
            sys.stdout.flush()
            await until_stopped(stop, canary.wait())
        finally:
            await canary.aclose()
    if canary.failure is not None:
        print_error(f"stopped: {canary.failure}")
        return ExitCode.FAIL_STOP
    return ExitCode.OK


async def _serve(stop: Stop, read: Callable[[], Configuration], settings: ServerSettings) -> int:
    server = Server(settings)
    try:
        await server.start()
    except RecordNotAppliedError as error:
        print_error(error)
        return ExitCode.FAIL_STOP
    except ServerStartError as error:
        print_error(error)
        return ExitCode.UNREACHABLE
    try:
        settle_memory()
        if settings.is_open:
            print_marker("open", _open_access(settings))
        if server.metrics_url is not None:
            print_marker("metrics", server.metrics_url)
        with _on_hangup(lambda: _reload(server, read)):
            sys.stdout.write(f"ready: {server.url} (data in {settings.data_dir}; stop with Ctrl-C)\n")
            sys.stdout.flush()
            await until_stopped(stop, server.wait())
            if stop.is_termination:
                await until_stopped(stop.again, server.drain())
    finally:
        await server.aclose()
    if server.failure is not None:
        print_error(f"stopped: {server.failure}")
        return ExitCode.FAIL_STOP
    return ExitCode.INTERRUPTED if stop.again.is_set() else ExitCode.OK


@contextlib.contextmanager
def _on_hangup(reload: Callable[[], None]) -> Iterator[None]:
    """Reload on SIGHUP, where there is one."""
    number = getattr(signal, "SIGHUP", None)
    if number is None:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(number, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)


def _reload(server: Server, read: Callable[[], Configuration]) -> None:
    """Take over what can be; say what needs a restart, or why nothing was taken over."""
    try:
        found = server.reload(read().settings)
    except (SettingsError, ServerStartError) as error:
        print_error(f"not reloaded: {error}; the server goes on as before")
        return
    print_marker("reloaded", ", ".join(map(_described, found.taken)) or "no setting has changed")
    if found.left:
        print_marker("needs a restart", ", ".join(map(_described, found.left)))


def _described(change: Change) -> str:
    return f"{change.name} {change.before} -> {change.after}"


def _open_access(settings: ServerSettings) -> str:
    callers = "any local process" if is_loopback(settings.host) else "any program that reaches this server"
    return (
        f"no authentication configured: {callers} has full access. Set --token-key-file or --api-keys to "
        "require credentials"
    )
