"""API keys of a bucket, which are read again whenever one of them has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import msgspec
import pytest

from circuit_breaker_server.security import shared_api_keys
from circuit_breaker_server.security.api_key_records import ApiKey, ApiKeyRefused, MadeKey, made_key
from circuit_breaker_server.security.shared_api_keys import open_shared_api_keys
from tests.server.tokens import NOW, SetClock


@final
class _Bucket:
    """A bucket in memory."""

    def __init__(self, made: list[MadeKey]) -> None:
        self.entries = {each.key.id: msgspec.json.encode(each.key) for each in made}
        self.told: Callable[[], object] = lambda: None

    def items(self, kind: str) -> dict[str, bytes]:
        return dict(self.entries)

    def on_change(self, kind: str, callback: Callable[[], object]) -> Callable[[], None]:
        self.told = callback
        return lambda: None


async def test_a_key_that_changes_is_decoded_and_not_all_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    decode = shared_api_keys._decoded

    def counted(id_: str, value: bytes) -> ApiKey | None:
        decoded.append(id_)
        return decode(id_, value)

    monkeypatch.setattr(shared_api_keys, "_decoded", counted)
    made = [made_key("user-7", label="", expires_in_seconds=None, now=NOW, taken=()) for _ in range(50)]
    bucket: Any = _Bucket(made)
    keys = await open_shared_api_keys(bucket, clock=SetClock())
    revoked: list[ApiKey] = []
    keys.on_revoked(revoked.append)
    assert keys.verify(made[0].text).principal == "user-7"
    decoded.clear()
    now = msgspec.structs.replace(made[0].key, revoked_at=NOW)
    bucket.entries[now.id] = msgspec.json.encode(now)
    del bucket.entries[made[1].key.id]
    bucket.told()
    assert decoded == [now.id]
    for each in made[:2]:
        with pytest.raises(ApiKeyRefused):
            keys.verify(each.text)
    assert keys.verify(made[2].text).principal == "user-7"
