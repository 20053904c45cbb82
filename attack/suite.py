"""All attacks, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attack import attacks
from attack.attacks import Attack
from attack.timing import timing_of_ids

__all__ = ["ATTACKS"]

ATTACKS: Final[Mapping[str, Attack]] = {
    **attacks.ATTACKS,
    "timing of ids": timing_of_ids,
}
