"""Every query, mutation and stream of the contract is served, answered, and typed in the SDK."""

from __future__ import annotations

from circuit_breaker_server.graphql.schema import load_schema
from scripts.coverage_api import CALLS, NOT_SERVED, STREAMS, cover


async def test_every_field_of_the_contract_is_answered_with_a_type_of_the_sdk() -> None:
    rows = await cover()
    assert [f"{row.name}: {row.answered}" for row in rows if not row.is_met] == [
        f"{name}: not served" for name in NOT_SERVED
    ]
    schema = load_schema()
    assert schema.query_type is not None
    assert schema.mutation_type is not None
    assert schema.subscription_type is not None
    assert CALLS.keys() == schema.query_type.fields.keys() | schema.mutation_type.fields.keys()
    assert STREAMS.keys() == schema.subscription_type.fields.keys()
