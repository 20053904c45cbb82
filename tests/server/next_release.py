"""The command line as the next release has it: one more version of records.

Run as ``python -m tests.server.next_release serve …``. The version is raised before other modules are
imported, which take it then.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

_NAME: Final = "circuit_breaker_server.engine.record_versions"


def _raise_version() -> None:
    package = importlib.util.find_spec("circuit_breaker_server")
    assert package is not None
    assert package.submodule_search_locations is not None
    (directory,) = package.submodule_search_locations
    spec = importlib.util.spec_from_file_location(_NAME, f"{directory}/engine/record_versions.py")
    assert spec is not None
    assert spec.loader is not None
    versions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(versions)
    vars(versions)["VERSION"] += 1
    sys.modules[_NAME] = versions


if __name__ == "__main__":
    _raise_version()
    # Behind it, all of them.
    from circuit_breaker_sdk.cli import main
    from circuit_breaker_server.engine.record_versions import DOWNCASTERS, UPCASTERS
    from tests.server.engine.version_steps import NEW, OLD, down, up

    UPCASTERS[OLD], DOWNCASTERS[NEW] = up, down
    main()
