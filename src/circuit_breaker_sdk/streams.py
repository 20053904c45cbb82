"""Typed subscriptions of the Circuit Breaker API, their builders, and the clients of its domains.

``client.workflows``, ``client.agents`` and their like return them; this module names them for annotations.
"""

from typing import TYPE_CHECKING

from circuit_breaker_sdk import domains
from circuit_breaker_sdk.subscriptions import (
    Acknowledged,
    Batches,
    BatchEvent,
    PendingEvent,
    ResumeByExtension,
    SubscriptionId,
    SubscriptionManager,
    Windows,
)

if TYPE_CHECKING:
    from circuit_breaker_sdk.domains import *  # noqa: F403 (the names of `domains.__all__`)

__all__ = [
    "Acknowledged",
    "BatchEvent",
    "Batches",
    "PendingEvent",
    "ResumeByExtension",
    "SubscriptionId",
    "SubscriptionManager",
    "Windows",
]
__all__ += domains.__all__


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(domains, name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
