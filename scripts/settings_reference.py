"""Writes docs/settings.md from the definitions of the settings, so that it cannot drift."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from circuit_breaker_server.settings.catalogue import CATALOGUE, GROUPS, Setting
from circuit_breaker_server.settings.oauth_providers import OAuthProviderSettings

__all__ = ["DOCUMENT", "write_reference"]

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "settings.md"

_HEAD: Final = """\
# Settings of the server

Every setting of `circuit-breaker serve`, with its default. `make generate` writes this page from the
definitions in `circuit_breaker_server/settings`.

A setting can stand in four places; the first of these wins:

1. an option of its own (`--port 4000`; `circuit-breaker serve --help` lists them), or
   `--set network.port=4000`, which takes every setting,
2. the environment: `CIRCUIT_BREAKER_NETWORK_PORT=4000`,
3. the file of `--config FILE`, in TOML:
   ```toml
   [network]
   port = 4000
   tls_cert = "server.pem"   # relative paths are meant from the directory of this file

   [rates]
   operations_per_second = 500
   events_per_second = "none"
   ```
4. its default.

`circuit-breaker serve --print-config` prints each value and where it comes from, as TOML that `--config`
reads. No setting holds a secret: keys are named by their files, and only these names are printed.

Lists have commas in the environment and behind `--set` (`10.0.0.0/8,10.1.0.1`), and `none` stands for no
value. What is no setting is an error that names the nearest one, wherever it stands.

**Reload.** On SIGHUP the server reads its settings again and takes over those that say "live" below, and the
files of the certificate, without closing a connection; it says what it took over and what needs a restart.
Settings that have a mistake change nothing. The access policy and API keys are watched and need no signal.
"""


def write_reference() -> str:
    """Write the page."""
    parts = [_HEAD]
    for group, about in GROUPS.items():
        parts.append(f"## {group}\n\n{about}\n\n| setting | type | default | |\n|---|---|---|---|")
        parts[-1] += "".join(f"\n{_row(each)}" for each in CATALOGUE.values() if each.group == group)
        parts[-1] += "\n"
    parts.append(_providers())
    return "\n".join(parts)


def _row(setting: Setting) -> str:
    name = setting.name.rpartition(".")[2]
    live = "Live. " if setting.is_live else ""
    return f"| `{name}` | {_type(setting)} | {_default(setting)} | {live}{_markdown(setting.text)} |"


def _type(setting: Setting) -> str:
    kinds: dict[Any, str] = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "text",
        Path: "path",
        tuple[str, ...]: "list of texts",
    }
    return kinds.get(setting.type, "list of tables") + (" or none" if setting.is_optional else "")


def _default(setting: Setting) -> str:
    match setting.default:
        case None:
            return "none"
        case ():
            return "empty"
        case bool():
            return str(setting.default).lower()
        case int() | float():
            return f"{setting.default:,}"
        case _:
            return f"`{setting.default}`"


def _markdown(text: str) -> str:
    """Turn the markup of a docstring into Markdown, and begin with a capital letter."""
    text = re.sub(r":\w+:`~?\.?([^`]+)`", r"`\1`", text).replace("``None``", "none").replace("``", "`")
    return (text[:1].upper() + text[1:]).replace("|", "\\|")


def _providers() -> str:
    names = ", ".join(f"`{each.name}`" for each in fields(OAuthProviderSettings))
    return f"""\
An OAuth provider is a table with {names}, of which the last three may be missing:

```toml
[[providers.oauth]]
id = "corp"
name = "Corp"
authorization_endpoint = "https://login.example.com/authorize"
token_endpoint = "https://login.example.com/token"
```
"""


if __name__ == "__main__":
    DOCUMENT.write_text(write_reference(), encoding="utf-8")
