"""Writes the SDK's types, domain clients and streams from the server's schema, so that they cannot drift.

``make generate`` writes them; a test writes them elsewhere and compares. What a generator cannot know
(names that users expect, properties for convenience) is in :mod:`tools.sdk.names`. The workflow domain is
written by hand and compared with the schema by another test. The blocking client is made from the async one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.sdk.blocking import write_blocking
from scripts.sdk.clients import BASES, CLIENTS, write_client
from scripts.sdk.names import DOMAINS, STREAMS
from scripts.sdk.schema import PACKAGE, ROOT, definitions, exported_by_hand, exported_types, module_of
from scripts.sdk.streams import write_consolidated, write_streams
from scripts.sdk.texts import HEADER
from scripts.sdk.types import write_types


def write_package() -> str:
    """Write what the package of types exports: all of them."""
    base = [name for name in exported_by_hand("base") if name != "Input"]
    generated = {module_of(domain): names for domain, names in exported_types().items()}
    sources = {"base": base, **generated, "workflows": exported_by_hand("workflows")}
    imports = "".join(
        f"    from circuit_breaker_sdk.events.{module} import {', '.join(names)}\n"
        for module, names in sources.items()
    )
    listed = sorted({"UNSET", "UnsetType", *(name for names in sources.values() for name in names)})
    exported = "".join(f'    "{name}",\n' for name in listed)
    places = "".join(f'    "{name}": "{module}",\n' for module, names in sources.items() for name in names)
    said = "Typed events, their enums and the inputs of mutations; a module is loaded when it is used."
    head = f'{HEADER}"""{said}"""\n'
    return (
        f"{head}\nfrom importlib import import_module\nfrom typing import TYPE_CHECKING\n\n"
        f"from msgspec import UNSET, UnsetType\n\nif TYPE_CHECKING:\n{imports}\n"
        f"__all__ = [\n{exported}]\n\n_MODULES = {{\n{places}}}\n\n\n"
        "def __getattr__(name: str) -> object:\n"
        "    module = _MODULES.get(name)\n"
        "    if module is None:\n"
        '        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")\n'
        '    value: object = getattr(import_module(f"{__name__}.{module}"), name)\n'
        "    globals()[name] = value  # found without this function from now on\n"
        "    return value\n"
    )


def files() -> dict[str, str]:
    """Return every generated file by its path in the package."""
    found = {"events/__init__.py": write_package(), "domains/subscription_client.py": write_consolidated()}
    for domain in DOMAINS:
        found[f"events/{module_of(domain)}.py"] = write_types(domain)
        if domain in CLIENTS:
            name = f"{domain}_operations" if domain in BASES else domain
            found[f"domains/{name}.py"] = write_client(domain)
        if domain in DOMAINS and any(name in STREAMS for name in definitions(domain)[3]):
            found[f"domains/{domain}_streams.py"] = write_streams(domain)
    return found | write_blocking(found)


def write(package: Path) -> list[Path]:
    """Write all files below a package's folder, formatted; return their paths."""
    paths = []
    for name, text in files().items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    ruff = [sys.executable, "-m", "ruff"]
    for step in (["check", "--quiet", "--fix", "--select", "I,F401,RUF022"], ["format", "--quiet"]):
        config = ["--config", str(ROOT / "pyproject.toml")]
        subprocess.run([*ruff, *step, *config, *map(str, paths)], check=True)  # noqa: S603 (our own files)
    return paths


if __name__ == "__main__":
    write(PACKAGE)
