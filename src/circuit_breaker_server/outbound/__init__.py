"""Connections that the server opens itself: their allowed addresses, and the limits of answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from circuit_breaker_server.outbound.addresses import LOOPBACK, AddressRefused, AddressRules
from circuit_breaker_server.outbound.answer_limits import AnswerLimits

__all__ = ["LOOPBACK", "AddressRefused", "AddressRules", "AnswerLimits", "Outbound"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """The address rules and answer limits for servers that callers have named.

    :ivar rules: the addresses to which the server may connect. Default: loopback and public ones, as is safe
        for an engine without callers from other machines.
    :ivar limits: bounds of the answers.
    """

    rules: AddressRules = field(default_factory=lambda: AddressRules(LOOPBACK))
    limits: AnswerLimits = field(default_factory=AnswerLimits)
