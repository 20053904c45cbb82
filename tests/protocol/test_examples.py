"""The examples in the docstrings run as they stand."""

from __future__ import annotations

import inspect
import textwrap
from types import ModuleType

import pytest

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol import (
    close_codes,
    codec,
    conversation,
    message_assembly,
    messages,
    next_prefix,
    transitions,
    transport_ws,
)

MODULES = [
    close_codes,
    codec,
    conversation,
    message_assembly,
    messages,
    next_prefix,
    transitions,
    transport_ws,
]


def public_classes(module: ModuleType) -> list[type]:
    members = (getattr(module, name) for name in module.__all__)
    return [member for member in members if inspect.isclass(member) and member.__module__ == module.__name__]


def example(documented: type) -> str:
    _, found, code = inspect.cleandoc(documented.__doc__ or "").partition("Example::\n")
    return textwrap.dedent(code) if found else ""


CLASSES = [member for module in MODULES for member in public_classes(module)]
EXAMPLES = [member for member in CLASSES if example(member)]


@pytest.mark.parametrize("documented", EXAMPLES, ids=lambda member: member.__name__)
def test_the_example_runs(documented: type) -> None:
    module = inspect.getmodule(documented)
    names = {**vars(module), **vars(messages), "GraphQLError": GraphQLError}
    exec(compile(example(documented), documented.__name__, "exec"), names)  # noqa: S102 (our own docstring)


def test_every_public_class_that_is_made_by_a_user_has_an_example() -> None:
    without = {member.__name__ for member in CLASSES if not example(member)}
    # Enumerations show their members, and errors are raised, not made.
    errors = {"ConnectionRefused", "FrameError", "InvalidMessage", "InvalidPayload"}
    assert without == {"CloseCode", "ClientState", "ServerState"} | errors
