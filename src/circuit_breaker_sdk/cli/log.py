"""``circuit-breaker log``: repair the event log of a server that is stopped."""

from __future__ import annotations

import asyncio
import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from circuit_breaker_sdk.cli.exit_codes import ExitCode, help_end
from circuit_breaker_sdk.cli.runtime import one_line, print_error

__all__ = ["log_app"]

log_app: typer.Typer = typer.Typer(
    help="Repair the event log of a server that is stopped.",
    epilog=help_end("operations.md"),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@log_app.callback()
def options() -> None:
    """Take no options; with it, one command is still a command of a group."""


@log_app.command(epilog=help_end("operations.md"))
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
) -> None:
    """Let the server start without applying one record to its state.

    circuit-breaker log skip 1234 --reason 'written by a faulty release'

    circuit-breaker log skip 1234 --reason 'as above' --data DIR

    The record stays in the log, and a further record names the user and the reason; the audit log gets a
    line. A subscription that resumes from before the skipped record is told of a gap with the reason
    `skipped`. Use it only when no release of the server can apply the record: the change that the record
    holds is missing from the state afterwards.
    """
    raise typer.Exit(asyncio.run(_skip(data, offset, reason)))


async def _skip(data: Path, offset: int, reason: str) -> ExitCode:
    # Here, not above: the server is an extra that `watch` does without.
    from circuit_breaker_server.engine.skipped_records import CannotSkip, skip  # noqa: PLC0415 (see the line above)
    from circuit_breaker_server.log.event_log import LogError  # noqa: PLC0415 (as above)
    from circuit_breaker_server.log.sqlite import SqliteEventLog  # noqa: PLC0415 (as above)

    if not (data / "events.db").exists():
        print_error(f"{data}: has no event log; name the server's data directory with --data")
        return ExitCode.USAGE
    try:
        log = await SqliteEventLog.open(data)
        try:
            record = await skip(log, offset, reason=reason, operator=getpass.getuser())
        finally:
            await log.aclose()
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
