"""``circuit-breaker audit``: check a server's audit log, and take out of it what is asked for."""

from __future__ import annotations

import asyncio
import csv
import enum
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from circuit_breaker_sdk.cli.exit_codes import ExitCode, help_end
from circuit_breaker_sdk.cli.log import Assignments, Config, log_place
from circuit_breaker_sdk.cli.runtime import give_up_stdout, one_line, print_error

if TYPE_CHECKING:
    from circuit_breaker_server.log.copying import LogPlace
    from circuit_breaker_server.security.audit import AuditLine, AuditPaths

__all__ = ["audit_app"]

audit_app: typer.Typer = typer.Typer(
    help="Check and export a server's audit log.",
    epilog=help_end("security.md"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_COLUMNS: Final = (
    *("seq", "at", "action", "principal", "tenant", "address", "what", "decision", "reason", "policy"),
    *("first_cursor", "last_cursor", "count", "times", "record", "taken_over", "taken_from", "mac"),
)

_Data = Annotated[Path, typer.Option(metavar="DIR", help="The server's data directory.")]
_KeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The key of the log; audit.key in the data directory if not given. The environment variable "
        "CIRCUIT_BREAKER_AUDIT_KEY (base64) goes before it.",
    ),
]
_Anchor = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The log's anchor; DIR.audit-anchor, beside DIR, if not given."),
]
_DATA: Final = Path("circuit-breaker-data")


class ExportFormat(enum.StrEnum):
    """Formats that ``audit export`` writes."""

    JSONL = "jsonl"
    CSV = "csv"


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is no time as in RFC 3339") from None


@audit_app.command(epilog=help_end("security.md"))
def verify(
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="The server's data directory, with those of its workers; may be repeated, for nodes.",
        ),
    ] = None,
    audit_key_file: _KeyFile = None,
    anchor: _Anchor = None,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Compare with the event log: its data directory, or nats://host:4222. Each record of a "
            "caller has to have one line.",
        ),
    ] = None,
    config: Config = None,
    set_: Assignments = None,
) -> None:
    """Tell whether every line is as it was written, in its place, and none is missing.

    circuit-breaker audit verify --data DIR --audit-key-file audit.key

    circuit-breaker audit verify --data n1 --data n2 --data n3 --log nats://127.0.0.1:4222

    A server may be writing meanwhile. What is wrong is told in one line each, and the status is 1.
    """
    chains = _chains(data or [_DATA])
    if anchor is not None and len(chains) > 1:
        raise typer.BadParameter("--anchor is the anchor of one audit log, and there are several")
    named = {str(each): _paths(each, audit_key_file, anchor) for each in chains}
    place = None
    if log is not None and (place := log_place("--log", log, config, set_ or ())) is None:
        raise typer.Exit(ExitCode.USAGE)
    raise typer.Exit(_run(lambda: _verify(named, place)))


@audit_app.command(epilog=help_end("security.md"))
def export(
    *,
    data: _Data = _DATA,
    audit_key_file: _KeyFile = None,
    anchor: _Anchor = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=_moment, metavar="T", help="From this time on (RFC 3339; UTC without an offset)."
        ),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=_moment, metavar="T", help="Up to before this time.")
    ] = None,
    principal: Annotated[str | None, typer.Option(metavar="P", help="Only what this one did.")] = None,
    output: Annotated[
        ExportFormat,
        typer.Option("--format", help="jsonl: the lines as they are; csv: a table for a spreadsheet."),
    ] = ExportFormat.JSONL,
) -> None:
    """Write the lines that are good to stdout.

    circuit-breaker audit export --since 2026-01-01 --format csv > audit.csv

    circuit-breaker audit export --principal user-7 --data DIR

    The whole log is checked, whatever is asked for. What is wrong with it is told on stderr, and the status
    is 1 then.
    """
    raise typer.Exit(
        _run(
            lambda: _export(
                _paths(data, audit_key_file, anchor),
                since=since,
                until=until,
                principal=principal,
                output=output,
            )
        )
    )


def _paths(data: Path, key: Path | None, anchor: Path | None) -> AuditPaths:
    # Here, not above: the server is an extra that `watch` does without.
    from circuit_breaker_server.security.audit import AuditPaths  # noqa: PLC0415 (see the line above)

    return AuditPaths.of(data, key=key, anchor=anchor)


def _run(command: Callable[[], ExitCode]) -> ExitCode:
    from circuit_breaker_server.security.audit import AuditLogError  # noqa: PLC0415 (as above)

    try:
        return command()
    except AuditLogError as error:
        print_error(error)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _chains(directories: Sequence[Path]) -> list[Path]:
    """Return the directories that have an audit log of their own: those given, and those of their workers."""
    workers = [worker for each in directories for worker in sorted((each / "workers").glob("*"))]
    found = [worker for worker in workers if (worker / "audit").is_dir()]
    # Workers alone may have one; without any, what is missing is told of the directory that was given.
    return [each for each in directories if (each / "audit").is_dir() or not found] + found


def _verify(named: Mapping[str, AuditPaths], place: LogPlace | None) -> ExitCode:
    from circuit_breaker_server.security.audit import read_key, verify  # noqa: PLC0415 (as above)

    status = ExitCode.OK
    for name, paths in named.items():
        prefix = f"{name}: " if len(named) > 1 else ""
        result = verify(paths.log, read_key(paths.key), paths.anchor)
        for finding in result.findings:
            sys.stdout.write(f"{prefix}{one_line(finding)}\n")
        if not result.whole:
            status = ExitCode.VERDICT
            continue
        times = f", {result.first_at} to {result.last_at}" if result.records else ""
        sys.stdout.write(
            f"{prefix}{result.records} records, chain whole, "
            f"head {result.head.seq} {result.head.mac}{times}\n"
        )
    if place is None:
        return status
    return max(status, asyncio.run(_compare(named, place)))


async def _compare(named: Mapping[str, AuditPaths], place: LogPlace) -> ExitCode:
    from circuit_breaker_server.access.audit_comparison import AuditComparison  # noqa: PLC0415 (as above)
    from circuit_breaker_server.log.copying import read_log  # noqa: PLC0415 (as above)
    from circuit_breaker_server.log.event_log import LogError  # noqa: PLC0415 (as above)
    from circuit_breaker_server.security.audit import AuditLine, read, read_key  # noqa: PLC0415 (as above)

    try:
        now_ms = time.time_ns() // 1_000_000
        # The log's end first: lines that are written meanwhile are for records behind it.
        async with read_log(place) as log:
            comparison = AuditComparison(log.epoch)
            for name, paths in named.items():
                for each in read(paths.log, read_key(paths.key), paths.anchor):
                    if isinstance(each, AuditLine):
                        comparison.add(name, each.record)
            await comparison.run(log.records, first_offset=log.first_offset, now_ms=now_ms)
    except LogError as error:
        print_error(error)
        return ExitCode.UNREACHABLE
    found = list(comparison.findings())
    for finding in found:
        sys.stdout.write(f"{one_line(finding)}\n")
    taken_over = f", {comparison.taken_over} written by another node" if comparison.taken_over else ""
    sys.stdout.write(f"{comparison.records} records of the event log have one line each{taken_over}\n")
    return ExitCode.VERDICT if found else ExitCode.OK


def _export(
    paths: AuditPaths,
    *,
    since: datetime | None,
    until: datetime | None,
    principal: str | None,
    output: ExportFormat,
) -> ExitCode:
    from circuit_breaker_server.security.audit import Finding, instant, read, read_key  # noqa: PLC0415 (as above)

    begin = "" if since is None else instant(since)
    end = "~" if until is None else instant(until)  # a text that comes after every digit
    write = _write_csv() if output is ExportFormat.CSV else _write_line
    status = ExitCode.OK
    try:
        for each in read(paths.log, read_key(paths.key), paths.anchor):
            if isinstance(each, Finding):
                print_error(each)
                status = ExitCode.VERDICT
            elif begin <= each.record.at < end and principal in (None, each.record.principal):
                write(each)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough
        give_up_stdout()
    return status


def _write_line(line: AuditLine) -> None:
    sys.stdout.write(f"{line.text.decode()}\n")


def _write_csv() -> Callable[[AuditLine], None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_COLUMNS)

    def write(line: AuditLine) -> None:
        writer.writerow([_cell(getattr(line.record, column)) for column in _COLUMNS])

    return write


def _cell(value: object) -> object:
    """Write a cell that no spreadsheet takes for a formula and no terminal for a command."""
    if not isinstance(value, str):
        return value
    text = re.sub(
        r"[^\x20-\x7e]", lambda found: found[0] if found[0].isprintable() else ascii(found[0])[1:-1], value
    )
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
