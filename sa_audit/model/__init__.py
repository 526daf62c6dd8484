"""DECLARE: column policies, configuration, history tables and the trail's fixed tables.

Imports nothing of the library but errors.
"""

from .configuration import AuditOptions, Configuration, Retention, Roles
from .declaration import Audited, complete, configure, track
from .history import (
    AuditedTable,
    RecordedColumn,
    Trail,
    audited_of,
    is_trail_table,
    iter_audited,
    require_audited,
    trail_of,
)
from .policy import Digest, Digested, Encrypt, Encrypted, Erased, Exclude, Excluded, Marker, Mask, Masked, Policy

__all__ = [
    "AuditOptions",
    "Audited",
    "AuditedTable",
    "Configuration",
    "Digest",
    "Digested",
    "Encrypt",
    "Encrypted",
    "Erased",
    "Exclude",
    "Excluded",
    "Marker",
    "Mask",
    "Masked",
    "Policy",
    "RecordedColumn",
    "Retention",
    "Roles",
    "Trail",
    "audited_of",
    "complete",
    "configure",
    "is_trail_table",
    "iter_audited",
    "require_audited",
    "track",
    "trail_of",
]
