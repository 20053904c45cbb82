"""A name lookup with scripted answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

__all__ = ["Names"]


@final
class Names:
    """Resolves names as it is told, each time to the next of the answers."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
