"""Connections that the server opens itself: to which addresses, and how much may come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from circuit_breaker_server.outbound.addresses import LOOPBACK, AddressRefused, AddressRules
from circuit_breaker_server.outbound.answers import AnswerLimits

__all__ = ["LOOPBACK", "AddressRefused", "AddressRules", "AnswerLimits", "Outbound"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """What the server observes towards servers that callers have named.

    :ivar rules: to which addresses it connects; loopback and public ones if nothing is said, as an engine
        without callers from elsewhere may.
    :ivar limits: how much may come back.
    """

    rules: AddressRules = field(default_factory=lambda: AddressRules(LOOPBACK))
    limits: AnswerLimits = field(default_factory=AnswerLimits)
