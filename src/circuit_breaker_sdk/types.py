"""Models, enums and inputs of the Circuit Breaker API: the types of events, answers and arguments.

They are generated from the server's schema, in :mod:`circuit_breaker_sdk.events`; each is loaded when it is
used.
"""

from typing import TYPE_CHECKING

from circuit_breaker_sdk import events

if TYPE_CHECKING:
    from circuit_breaker_sdk.events import *  # noqa: F403 (the names of `events.__all__`)

__all__ = []
__all__ += events.__all__


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(events, name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
