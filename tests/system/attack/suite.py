"""All attacks, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.system.attack import attacks
from tests.system.attack.attempt import Attack
from tests.system.attack.audit_flood import AUDIT_ATTACKS
from tests.system.attack.event_streams import STREAM_ATTACKS
from tests.system.attack.inbound import INBOUND
from tests.system.attack.outbound import OUTBOUND_ATTACKS
from tests.system.attack.ownership import OWNERSHIP_ATTACKS
from tests.system.attack.quotas import QUOTA_ATTACKS
from tests.system.attack.timing import timing_of_ids
from tests.system.attack.work import WORK_ATTACKS

__all__ = ["ATTACKS", "ELSEWHERE"]

ATTACKS: Final[Mapping[str, Attack]] = {
    **attacks.ATTACKS,
    **INBOUND,
    **OUTBOUND_ATTACKS,
    **OWNERSHIP_ATTACKS,
    **AUDIT_ATTACKS,
    **STREAM_ATTACKS,
    **WORK_ATTACKS,
    **QUOTA_ATTACKS,
    "timing of ids": timing_of_ids,
}

ELSEWHERE: Final = frozenset(AUDIT_ATTACKS)
"""Attacks on a server of their own, which shares its core and disk with that of the victims."""
