"""Every exported name can be had, though its module is loaded only when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import circuit_breaker_sdk
from circuit_breaker_sdk import domains, events, streams, types


@pytest.mark.parametrize("package", [circuit_breaker_sdk, domains, events, streams, types])
def test_every_exported_name_is_there_and_no_other(package: object) -> None:
    exported: list[str] = package.__all__  # type: ignore[attr-defined]  # a package
    for name in exported:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = package.Nonsense  # type: ignore[attr-defined]  # that is the point


def test_a_client_loads_no_domain_before_it_is_used() -> None:
    code = (
        "import sys; from circuit_breaker_sdk import Client; c = Client('ws://localhost:4000');"
        "loaded = lambda: sorted(m for m in sys.modules if m.startswith('circuit_breaker_sdk.domains.'));"
        "own = ['circuit_breaker_sdk.domains.execution', 'circuit_breaker_sdk.domains.offline_queue'];"
        "assert loaded() == own, loaded(); c.mcp;"
        "assert 'circuit_breaker_sdk.domains.mcp' in loaded();"
        "assert 'circuit_breaker_sdk.domains.llm' not in loaded()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_the_blocking_client_is_loaded_when_it_is_used_and_loads_no_domain() -> None:
    code = (
        "import sys; from circuit_breaker_sdk import Client;"
        "loaded = lambda name: [m for m in sys.modules if m.startswith('circuit_breaker_sdk.' + name)];"
        "assert not loaded('sync'); from circuit_breaker_sdk import SyncClient;"
        "c = SyncClient('ws://localhost:4000'); assert loaded('sync');"
        "assert not loaded('domains.workflows'); assert not loaded('domains.llm'); c.workflows;"
        "assert loaded('sync.domains.workflows'); assert not loaded('sync.domains.mcp')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
