"""Read deploy/Dockerfile as a list of instructions."""

from __future__ import annotations

import json
import re
import shlex
from typing import Final, NamedTuple

from tests.deploy.command_lines import DEPLOY, uncommented

__all__ = ["INSTRUCTIONS", "Instruction", "environment", "exec_form", "final_stage", "health_check"]


class Instruction(NamedTuple):
    """One instruction, its lines joined."""

    name: str
    arguments: str


def _instructions(source: str) -> list[Instruction]:
    joined = re.sub(r"\\\n", " ", source)
    found = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [Instruction(name, rest.strip()) for name, _, rest in found]


INSTRUCTIONS: Final = _instructions(uncommented(DEPLOY / "Dockerfile"))


def final_stage() -> dict[str, list[str]]:
    """Return the arguments of each kind of instruction in the last stage."""
    last = max(index for index, each in enumerate(INSTRUCTIONS) if each.name == "FROM")
    found: dict[str, list[str]] = {}
    for each in INSTRUCTIONS[last:]:
        found.setdefault(each.name, []).append(each.arguments)
    return found


def environment() -> dict[str, str]:
    """Return the variables that the image sets."""
    pairs = [pair.partition("=") for line in final_stage()["ENV"] for pair in shlex.split(line)]
    return {name: value for name, _, value in pairs}


def exec_form(arguments: str) -> list[str]:
    """Return the command of an instruction in exec form.

    :raises ValueError: it is in shell form, so that a shell would get the signals.
    """
    command = json.loads(arguments)
    if not isinstance(command, list) or not all(isinstance(each, str) for each in command):
        raise ValueError(f"{arguments} is not in exec form")
    return command


def health_check() -> list[str]:
    """Return the command of the health check."""
    (check,) = final_stage()["HEALTHCHECK"]
    return exec_form(check.partition(" CMD ")[2] or check.partition("CMD ")[2])
