"""``circuit-breaker doctor``: what stands between this machine and a GraphQL server, step by step."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec

from circuit_breaker_sdk.cli.doctor.finding import Finding, State, not_offered, not_tried
from circuit_breaker_sdk.cli.doctor.http_steps import HTTP_STEPS, NO_GRAPHQL, http_findings, token_finding
from circuit_breaker_sdk.cli.doctor.network_steps import network_findings
from circuit_breaker_sdk.cli.doctor.patient import Patient
from circuit_breaker_sdk.cli.doctor.websocket_steps import WEBSOCKET_STEPS, websocket_findings
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import one_line, print_error, until_stopped
from circuit_breaker_sdk.errors import UsageError

__all__ = ["doctor", "examine"]

_WIDTH: Final = 20


async def doctor(
    stop: asyncio.Event,
    url: str,
    *,
    token: str | None,
    seconds: float,
    authority: str | None,
    as_json: bool,
) -> int:
    """Print each step's result; the status is 0 if nothing is wrong, else 1.

    :param seconds: each step may take so long.
    :param authority: a file with certificates of authorities, in place of the system's.
    :param as_json: one object on stdout in place of lines.
    """
    try:
        patient = Patient.of(url, token=token, seconds=seconds, authority=authority)
    except UsageError as error:
        print_error(error)
        return ExitCode.USAGE
    except OSError as error:
        print_error(f"{authority}: {error.strerror or error}")
        return ExitCode.USAGE
    found: list[Finding] = []

    async def run() -> bool:
        async for finding in examine(patient):
            found.append(finding)
            if not as_json:
                _print(finding)
        return True

    if await until_stopped(stop, run()) is None:
        return ExitCode.INTERRUPTED
    is_well = all(each.state is not State.WRONG for each in found)
    if as_json:
        sys.stdout.write(msgspec.json.encode(_as_json(patient, found, is_well=is_well)).decode() + "\n")
    return ExitCode.OK if is_well else ExitCode.VERDICT


async def examine(patient: Patient) -> AsyncIterator[Finding]:
    """Go through the steps; what cannot work because of an earlier one is not tried."""
    token = token_finding(patient)
    if token is not None:
        yield token
    async for finding in network_findings(patient):
        yield finding
        if finding.state is State.WRONG:
            for step in (*HTTP_STEPS, *WEBSOCKET_STEPS):
                yield not_tried(step, f"{finding.step}: {finding.state}")
            return
    http = [each async for each in http_findings(patient)]
    websocket = [each async for each in websocket_findings(patient, answers_http=_is_fine(http, "http"))]
    if _is_fine(websocket, "websocket"):
        http = [_without_http(each) for each in http]
    for finding in (*_whole(HTTP_STEPS, http), *_whole(WEBSOCKET_STEPS, websocket)):
        yield finding


def _is_fine(findings: Sequence[Finding], step: str) -> bool:
    return any(each.step == step and each.state is State.OK for each in findings)


def _without_http(finding: Finding) -> Finding:
    """Take for a server without GraphQL over HTTP what has a WebSocket at this path."""
    if finding.facts.get("reason") != NO_GRAPHQL:
        return finding
    return not_offered("http", f"{finding.text}; queries and mutations need it")


def _whole(steps: Sequence[str], findings: Sequence[Finding]) -> list[Finding]:
    """Add the steps that were not tried, behind the one that is the reason."""
    last = findings[-1]
    reason = next((each for each in findings if each.state is not State.OK and each.step == steps[0]), last)
    seen = {each.step for each in findings}
    missing = [step for step in steps if step not in seen]
    return [*findings, *(not_tried(step, f"{reason.step}: {reason.state}") for step in missing)]


def _print(finding: Finding) -> None:
    sys.stdout.write(f"{finding.state.value:11}  {finding.step:{_WIDTH}}{one_line(finding.text)}\n")
    if finding.advice:
        sys.stdout.write(f"{'':11}  {'':{_WIDTH}}-> {one_line(finding.advice)}\n")
    sys.stdout.flush()


def _as_json(patient: Patient, found: Sequence[Finding], *, is_well: bool) -> Mapping[str, object]:
    return {
        "url": patient.place,
        "ok": is_well,
        "steps": [
            {
                "step": each.step,
                "state": each.state.value,
                "text": each.text,
                "advice": each.advice,
                **({"facts": dict(each.facts)} if each.facts else {}),
            }
            for each in found
        ],
    }
