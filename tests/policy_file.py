"""Policy files as tests write them: one administrator, ``boss``, and the principals of the test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from circuit_breaker_server.security.scopes import KINDS

__all__ = ["EVERY_SCOPE", "policy_of"]

EVERY_SCOPE: Final = [f"{kind}:admin:*" for kind in KINDS]
"""The scopes of the administrator."""


def policy_of(principals: Mapping[str, tuple[str, list[str]]]) -> str:
    """Write the policy of these principals, tenant and scopes by name, and of ``boss``, the administrator."""
    return "\n".join(
        f'[principals."{name}"]\ntenant = "{tenant}"\nscopes = {json.dumps(scopes)}'
        for name, (tenant, scopes) in {"boss": ("*", EVERY_SCOPE), **principals}.items()
    )
