"""Settings for the verification of bearer tokens: the key, the algorithm, the issuer and the audience."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

__all__ = ["TOKEN_ALGORITHMS", "TokenSettings"]

TOKEN_ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """Which bearer tokens (JWT) a server takes. The key is checked when the server starts, and never shown.

    :ivar key: what verifies tokens, or the file with it. HS256: a secret of 32 bytes or more; a line end
        after a secret that is text does not belong to it. Otherwise the public key, as PEM or JWK.
        Or several of either (JWKS), of which a token names its own by ``kid``; one that names none is taken
        where one key alone is for the algorithm.
    :ivar algorithm: the only one a token may be signed with, one of :data:`TOKEN_ALGORITHMS`.
    :ivar issuer: what ``iss`` must be; ``None`` takes any.
    :ivar audience: what must be in ``aud``; ``None`` takes any.
    :ivar leeway_seconds: how far the clocks of issuer and server may differ: a token is good until that long
        after its ``exp``, and from that long before its ``nbf``.

    Example::

        TokenSettings(key=Path("token.key"), issuer="https://login.example.com")
    """

    key: bytes | Path = field(repr=False)
    algorithm: str = "HS256"
    issuer: str | None = None
    audience: str | None = None
    leeway_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.algorithm not in TOKEN_ALGORITHMS:
            raise ValueError(f"algorithm must be one of {', '.join(TOKEN_ALGORITHMS)}, not {self.algorithm}")
        if not 0 <= self.leeway_seconds < math.inf:
            raise ValueError(f"leeway_seconds must be 0 or more, not {self.leeway_seconds}")
        for name in ("issuer", "audience"):
            if getattr(self, name) == "":
                raise ValueError(f"{name} must not be empty; None takes any")
