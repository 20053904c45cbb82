"""``circuit-breaker log``: repair or copy the event log of a server that is stopped."""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_breaker_sdk.cli.exit_codes import ExitCode, help_end
from circuit_breaker_sdk.cli.runtime import one_line, print_error

if TYPE_CHECKING:
    from circuit_breaker_server.log.copying import Copied, LogPlace

__all__ = ["Assignments", "Config", "log_app", "log_place"]

log_app: typer.Typer = typer.Typer(
    help="Repair or copy the event log of a server that is stopped.",
    epilog=help_end("errors.md"),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@log_app.callback()
def options() -> None:
    """Take no options; with it, one command is still a command of a group."""


Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The server's settings (TOML), of which the group cluster counts."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting, as cluster.stream=events; may be repeated."),
]


@log_app.command(epilog=help_end("errors.md"))
def skip(
    offset: Annotated[
        int, typer.Argument(min=1, help="Offset of the record that cannot be applied.", show_default=False)
    ],
    *,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why it is skipped; kept in the log.", show_default=False)
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="The server's data directory.")] = Path(
        "circuit-breaker-data"
    ),
    log: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The log is on NATS JetStream, as nats://host:4222, not in DIR."),
    ] = None,
    config: Config = None,
    set_: Assignments = None,
) -> None:
    """Let the server start without applying one record to its state.

    circuit-breaker log skip 1234 --reason 'written by a faulty release'

    circuit-breaker log skip 1234 --reason 'as above' --data DIR

    The record stays in the log, and a further record names the user and the reason; the audit log gets a
    line. A subscription that resumes from before the skipped record is told of a gap with the reason
    `skipped`. Use it only when no release of the server can apply the record: the change that the record
    holds is missing from the state afterwards. A log that nodes serve is refused: they may have applied it.
    """
    place = log_place("--log", str(data) if log is None else log, config, set_ or ())
    raise typer.Exit(ExitCode.USAGE if place is None else asyncio.run(_skip(place, offset, reason)))


@log_app.command(epilog=help_end("cluster.md"))
def copy(
    source: Annotated[
        str,
        typer.Argument(metavar="FROM", help="A data directory, or nats://host:4222.", show_default=False),
    ],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="Likewise; there must be no log.", show_default=False)
    ],
    *,
    config: Config = None,
    set_: Assignments = None,
) -> None:
    """Copy an event log, from a data directory to NATS JetStream or back.

    circuit-breaker log copy ./data nats://127.0.0.1:4222

    circuit-breaker log copy nats://127.0.0.1:4222 ./data --set cluster.token_file=nats.token

    Offsets, ids, times and epoch are kept. Nothing but the log is copied: secrets, API keys, keys of cursors
    and the audit log stay where they are. Stop all servers of the log first: a log that is served is not
    copied. A copy that was cut off goes on when it is run again; no server uses it before it is whole.
    """
    raise typer.Exit(_copy(source, target, config, set_ or ()))


def _copy(source: str, target: str, config: Path | None, assignments: Sequence[str]) -> ExitCode:
    # Here, not above: the server is an extra that `watch` does without.
    from circuit_breaker_server.log.event_log import LogError  # noqa: PLC0415 (see the line above)

    if _is_url(source) and _is_url(target):
        print_error("one of FROM and TO must be a data directory")
        return ExitCode.USAGE
    places = [
        place
        for name, text in (("FROM", source), ("TO", target))
        if (place := log_place(name, text, config, assignments)) is not None
    ]
    if len(places) < 2:
        return ExitCode.USAGE
    try:
        copied = asyncio.run(_copy_unserved(*places))
    except LogError as error:
        print_error(error)
        return ExitCode.UNREACHABLE
    except ModuleNotFoundError as error:
        print_error(f"the package {error.name} is missing: pip install 'circuit-breaker-sdk[server,cluster]'")
        return ExitCode.UNREACHABLE
    contents = copied.contents
    sys.stdout.write(
        f"copied {contents.records} records, {contents.first_offset} to {contents.last_offset}, and the "
        f"snapshot at {copied.snapshot_offset} to {places[1]}; SHA-256 {contents.digest}\n"
    )
    return ExitCode.OK


async def _copy_unserved(source: LogPlace, target: LogPlace) -> Copied:
    """Copy a log that no node serves.

    :raises LogError: nodes serve it, or as ``copy_log``.
    """
    # Here, not above: the server is an extra that `watch` does without.
    from circuit_breaker_server.log.copying import copy_log  # noqa: PLC0415 (see the line above)

    for place in (source, target):
        await _check_unserved(place)
    return await copy_log(source, target)


async def _check_unserved(place: LogPlace) -> None:
    """Refuse a log on brokers that nodes serve; that of a data directory is locked by who opens it.

    :raises LogError: nodes serve it, or the brokers cannot be asked.
    """
    # Here, not above: the server is an extra that `watch` does without.
    from circuit_breaker_server.engine.nodes.serving_nodes import serving_nodes  # noqa: PLC0415 (see above)
    from circuit_breaker_server.log.copying import opened_heartbeats  # noqa: PLC0415 (as above)
    from circuit_breaker_server.log.event_log import LogError  # noqa: PLC0415 (as above)

    if place.directory is None:
        async with opened_heartbeats(place.cluster) as heartbeats:
            nodes = await serving_nodes(heartbeats)
        if nodes:
            raise LogError(f"{place}: is served by {', '.join(nodes)}: stop these nodes first")


def _is_url(text: str) -> bool:
    return "://" in text


def log_place(name: str, text: str, config: Path | None, assignments: Sequence[str]) -> LogPlace | None:
    """Return the place of a log: a data directory, or the URLs of brokers.

    ``None``, after one line on stderr, if the settings have a mistake.
    """
    # Here, not above: the server is an extra that `watch` does without.
    from circuit_breaker_sdk.cli.serve import settings_reader  # noqa: PLC0415 (see the line above)
    from circuit_breaker_server.log.copying import LogPlace  # noqa: PLC0415 (as above)
    from circuit_breaker_server.settings.sources import SettingsError  # noqa: PLC0415 (as above)

    urls = tuple(url.strip() for url in text.split(",")) if _is_url(text) else ()
    try:
        cluster = settings_reader(config, assignments, {name: ("cluster.urls", urls)})().settings.cluster
    except SettingsError as error:
        print_error(error)
        return None
    return LogPlace(None if urls else Path(text), cluster)


async def _skip(place: LogPlace, offset: int, reason: str) -> ExitCode:
    # Here, not above: the server is an extra that `watch` does without.
    from circuit_breaker_server.engine.skipped_records import CannotSkip, skip  # noqa: PLC0415 (see the line above)
    from circuit_breaker_server.log.copying import opened_log  # noqa: PLC0415 (as above)
    from circuit_breaker_server.log.event_log import LogError  # noqa: PLC0415 (as above)

    if place.directory is not None and not (place.directory / "events.db").exists():
        print_error(f"{place.directory}: has no event log; name the server's data directory with --data")
        return ExitCode.USAGE
    try:
        await _check_unserved(place)
        async with opened_log(place) as log:
            record = await skip(log, offset, reason=reason, operator=getpass.getuser())
    except CannotSkip as error:
        print_error(error)
        return ExitCode.USAGE
    except LogError as error:
        print_error(error)
        return ExitCode.UNREACHABLE
    sys.stdout.write(
        f"record {offset} is skipped by record {record.offset}: {one_line(reason)}; start the server again\n"
    )
    return ExitCode.OK
