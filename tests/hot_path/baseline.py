"""The committed counts, one set for each minor version of Python, and what has grown or shrunk since."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path as FilePath
from typing import Final, NamedTuple, final

import msgspec

from tests.hot_path.counting import COUNTED, Counts

__all__ = ["FILE", "Baseline", "Difference", "differences", "nearest", "versions", "write"]

FILE: Final = FilePath(__file__).with_name("baseline.json")

_COUNTED_WITH: Final = ("msgspec", "picows", "uvloop", "graphql-core", "memray")


@final
class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted with one minor version of Python.

    :ivar versions: of Python and of the libraries whose insides are counted too.
    """

    versions: dict[str, str]
    paths: dict[str, Counts]


@final
class Difference(NamedTuple):
    """One count of one path; ``None`` where there was, or is, no such count."""

    path: str
    counted: str
    before: float | None
    now: float | None

    @property
    def grown(self) -> bool:
        """It is more, or it is new."""
        return self.now is not None and (self.before is None or self.now > self.before)

    def __str__(self) -> str:
        return f"{self.path}: {self.counted} {_shown(self.before)} -> {_shown(self.now)} per event"


def _shown(number: float | None) -> str:
    return "none" if number is None else f"{number:g}"


def versions() -> dict[str, str]:
    """Return the versions that counts depend on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _COUNTED_WITH:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _minor() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _read() -> dict[str, Baseline]:
    if not FILE.exists():
        return {}
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, Baseline])


def nearest() -> tuple[Baseline, str]:
    """Return the baseline of this version of Python, or of the nearest one and the reason for that."""
    all_, minor = _read(), _minor()
    if minor in all_:
        return all_[minor], ""
    chosen = min(all_, key=lambda version: abs(_number(version) - _number(minor)), default=None)
    if chosen is None:
        return Baseline(versions={}, paths={}), f"there is no baseline at all in {FILE.name}"
    return all_[chosen], (
        f"there is no baseline for Python {minor}: compared with that of {chosen}, which says little; "
        "`make hot-path ARGS=--write` adds one"
    )


def _number(version: str) -> int:
    return int(version.partition(".")[2])


def differences(baseline: Baseline, now: dict[str, Counts]) -> list[Difference]:
    """Return every count that is another one; allocations only where both have them."""
    found = []
    for path in {**baseline.paths, **now}:
        before, present = baseline.paths.get(path), now.get(path)
        for counted in COUNTED:
            was = None if before is None else getattr(before, counted)
            is_ = None if present is None else getattr(present, counted)
            not_counted = before is not None and present is not None and (was is None or is_ is None)
            if was != is_ and not not_counted:
                found.append(Difference(path, counted, was, is_))
    return found


def write(now: dict[str, Counts]) -> None:
    """Put the counts in the place of this version's."""
    all_ = {**_read(), _minor(): Baseline(versions=versions(), paths=now)}
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(all_), indent=2) + b"\n")
