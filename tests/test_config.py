"""Settings are frozen, and a number that cannot be meant is refused by its name."""

from __future__ import annotations

import msgspec
import pytest

from circuit_breaker_sdk import BufferLimits, MessageLimits, Timeouts
from circuit_breaker_sdk.errors import UsageError

NUMBERS = [
    (kind, name)
    for kind in (BufferLimits, MessageLimits, Timeouts)
    for name in kind.__struct_fields__
    if name != "overflow"
]


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@pytest.mark.parametrize("value", [0, -1])
def test_a_bound_that_is_not_positive_is_refused_by_name(
    kind: type[msgspec.Struct], name: str, value: int
) -> None:
    with pytest.raises(UsageError, match=f"{name} must be greater than 0, not {value}"):
        kind(**{name: value})


@pytest.mark.parametrize("settings", [BufferLimits(), MessageLimits(), Timeouts()])
def test_settings_are_frozen_and_equal_by_value(settings: msgspec.Struct) -> None:
    assert settings == type(settings)()
    with pytest.raises(AttributeError):
        setattr(settings, settings.__struct_fields__[0], 1)
