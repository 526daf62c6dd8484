"""A compliance audit trail for applications on SQLAlchemy.

Add a mixin, say who acts, and every change is recorded with its before and after::

    import sa_audit
    from sa_audit import Audited

    class Account(Audited, Base):
        __tablename__ = "account"
        id: Mapped[int] = mapped_column(primary_key=True)
        balance: Mapped[Decimal]

    with sa_audit.context(actor="teller:7", reason="deposit"), Session(engine) as session:
        session.get(Account, 42).balance += 100
        session.commit()

    sa_audit.history(session, Account, 42)
    with sa_audit.as_of(engine, "2026-03-31T23:59:59Z") as past:
        past.get(Account, 42)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from .capture import Context, context, current_context, record
from .capture.erasure import Erasure, erase
from .errors import (
    ActorRequired,
    AnchorUnavailable,
    AuditError,
    CaptureMissing,
    ConfigurationError,
    Conflict,
    ErasedValue,
    IntegrityFinding,
    InvalidMoment,
    LegalHold,
    MalformedProof,
    NotAudited,
    NotSealed,
    PrunedHistory,
    ReadOnlyPast,
    ReasonRequired,
    SealerBusy,
    SealRefused,
    SealTimeout,
    TrailNotEmpty,
    UnauditedWrite,
    Unencodable,
    UnusableKey,
)
from .model import (
    Audited,
    AuditOptions,
    Digest,
    Digested,
    Encrypt,
    Encrypted,
    Erased,
    Exclude,
    Excluded,
    Mask,
    Masked,
    Retention,
    Roles,
    configure,
    is_trail_table,
    track,
)
from .seal import await_sealed, rebase, revoke, seal

if TYPE_CHECKING:
    from .privacy import KeyProvider
    from .query import (
        Access,
        Change,
        Discrepancy,
        Event,
        Page,
        Reader,
        TransactionInfo,
        TransactionRecord,
        blame,
        diff,
        history,
        history_class,
        readers,
        reads,
        reconcile,
        restore,
        revert,
        trail,
        transaction,
    )
    from .query.timetravel import as_of
    from .retention import Pruned, prune
    from .verification import Finding, Report, prove, prove_consistency, verify

__version__ = "0.1.0"

__all__ = [
    "Access",
    "ActorRequired",
    "AnchorUnavailable",
    "AuditError",
    "AuditOptions",
    "Audited",
    "CaptureMissing",
    "Change",
    "ConfigurationError",
    "Conflict",
    "Context",
    "Digest",
    "Digested",
    "Discrepancy",
    "Encrypt",
    "Encrypted",
    "Erased",
    "ErasedValue",
    "Erasure",
    "Event",
    "Exclude",
    "Excluded",
    "Finding",
    "IntegrityFinding",
    "InvalidMoment",
    "KeyProvider",
    "LegalHold",
    "MalformedProof",
    "Mask",
    "Masked",
    "NotAudited",
    "NotSealed",
    "Page",
    "Pruned",
    "PrunedHistory",
    "ReadOnlyPast",
    "Reader",
    "ReasonRequired",
    "Report",
    "Retention",
    "Roles",
    "SealRefused",
    "SealTimeout",
    "SealerBusy",
    "TrailNotEmpty",
    "TransactionInfo",
    "TransactionRecord",
    "UnauditedWrite",
    "Unencodable",
    "UnusableKey",
    "as_of",
    "await_sealed",
    "blame",
    "configure",
    "context",
    "current_context",
    "diff",
    "erase",
    "history",
    "history_class",
    "is_trail_table",
    "prove",
    "prove_consistency",
    "prune",
    "readers",
    "reads",
    "rebase",
    "reconcile",
    "record",
    "restore",
    "revert",
    "revoke",
    "seal",
    "track",
    "trail",
    "transaction",
    "verify",
]

_LATER: Final = {
    ".privacy": "KeyProvider",
    ".query": (
        "Access Change Discrepancy Event Page Reader TransactionInfo TransactionRecord blame diff history "
        "history_class readers reads reconcile restore revert trail transaction"
    ),
    ".query.timetravel": "as_of",
    ".retention": "Pruned prune",
    ".verification": "Finding Report prove prove_consistency verify",
}
"""What asks or proves, by where it is: loaded when first used, since a process that only records has no need of it."""
_PLACES: Final = {name: place for place, names in _LATER.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_PLACES[name], __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
