"""The audit log: the actions of callers and the decisions on them, in lines that cannot be changed unnoticed.

:class:`AuditLog` writes, :func:`verify` and :func:`read` check. Each line is sealed (HMAC-SHA256) over its
text and the seal of the line before; the last seal that is on the disk is kept elsewhere too, as the anchor.
An attacker without the key cannot edit, drop, repeat or reorder lines unnoticed, nor, with the anchor, cut
the end. An attacker that has the key and can write both files can forge both: keep the key and the anchor
away from the log.
"""

from circuit_breaker_server.security.audit.anchor import Anchor
from circuit_breaker_server.security.audit.log import AuditLog
from circuit_breaker_server.security.audit.paths import KEY_VARIABLE, AuditLogError, AuditPaths, read_key
from circuit_breaker_server.security.audit.records import AuditEvent, AuditRecord, instant
from circuit_breaker_server.security.audit.rotation import Rotation
from circuit_breaker_server.security.audit.summaries import AuditLimits
from circuit_breaker_server.security.audit.verification import (
    AuditLine,
    Finding,
    FindingKind,
    Verification,
    read,
    verify,
)

__all__ = [
    "KEY_VARIABLE",
    "Anchor",
    "AuditEvent",
    "AuditLimits",
    "AuditLine",
    "AuditLog",
    "AuditLogError",
    "AuditPaths",
    "AuditRecord",
    "Finding",
    "FindingKind",
    "Rotation",
    "Verification",
    "instant",
    "read",
    "read_key",
    "verify",
]
