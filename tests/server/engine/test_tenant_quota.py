"""Quotas and rates of creation: one tenant, one principal does not use up what others need."""

from __future__ import annotations

import pytest

from circuit_breaker_server.engine.creation_rates import CreationRates
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.tenant_quota import KeysByTenant, TenantQuota


def quota(kept: KeysByTenant, *, per_tenant: int = 2, total: int = 3) -> TenantQuota:
    return TenantQuota(
        "things",
        per_tenant=per_tenant,
        total=total,
        count=lambda tenant: kept.count(tenant or ""),
        count_all=lambda: len(kept),
    )


def test_keys_are_counted_by_tenant() -> None:
    kept = KeysByTenant()
    kept.put("1", "a")
    kept.put("2", "a")
    kept.put("2", "b")
    kept.remove("1")
    kept.remove("1")
    assert (kept.count("a"), kept.count("b"), len(kept)) == (0, 1, 1)
    assert (kept.tenant_of("2"), kept.tenant_of("1")) == ("b", None)


def test_a_full_quota_names_the_callers_tenant_and_leaves_others_their_place() -> None:
    kept = KeysByTenant()
    kept.put("1", "a")
    kept.put("2", "a")
    full = quota(kept)
    with pytest.raises(EngineError, match="tenant 'a' has 2 things, the most it may have; delete") as refused:
        full.require("a")
    assert refused.value.code is ErrorCode.INVALID_INPUT
    with full.place("b"):
        kept.put("3", "b")


def test_a_full_server_tells_nobody_how_much_others_have() -> None:
    kept = KeysByTenant()
    for key, tenant in (("1", "a"), ("2", "a"), ("3", "b")):
        kept.put(key, tenant)
    with pytest.raises(EngineError) as refused:
        quota(kept).require("c")
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert not any(each in str(refused.value) for each in ("'a'", "'b'", "2", "3"))


def test_what_is_being_made_counts() -> None:
    full = quota(KeysByTenant())
    with full.place("a"), full.place("a"):
        with pytest.raises(EngineError):
            full.require("a")
        with full.place("b"), pytest.raises(EngineError):
            full.require("c")
    with full.place("a"), full.place("a"):
        pass


def test_a_principal_creates_at_a_rate_after_its_burst_and_others_are_not_held_up() -> None:
    now = [100.0]
    rates = CreationRates(per_second=2, burst=3, monotonic=lambda: now[0])
    for _ in range(3):
        rates.take("ada")
    with pytest.raises(EngineError, match="more than 2 a second") as refused:
        rates.take("ada")
    assert (refused.value.code, refused.value.facts["retryAfter"]) == (ErrorCode.RATE_LIMITED, 0.5)
    rates.take("bob")
    now[0] += 0.5
    rates.take("ada")
    with pytest.raises(EngineError):
        rates.take("ada")
    now[0] += 60
    rates.take("carl")
    assert rates.principals == 1, "those whose burst is whole again are forgotten"


def test_callers_who_are_not_known_create_as_they_like() -> None:
    rates = CreationRates(per_second=1, burst=1)
    for _ in range(3):
        rates.take("")
    unlimited = CreationRates(per_second=None, burst=1)
    for _ in range(3):
        unlimited.take("ada")
