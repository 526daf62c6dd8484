"""ASK: history of a row, blame, differences, the trail, time travel, restoring.

Imports model, ddl, privacy and capture only.
"""

from .accesses import readers, reads
from .change import Access, Change, Discrepancy, Event, Operation, Page, Reader, TransactionInfo, TransactionRecord
from .history import blame, diff, history
from .historyclass import history_class
from .reconcile import reconcile
from .restore import restore
from .revert import revert
from .trail import trail, transaction

__all__ = [
    "Access",
    "Change",
    "Discrepancy",
    "Event",
    "Operation",
    "Page",
    "Reader",
    "TransactionInfo",
    "TransactionRecord",
    "blame",
    "diff",
    "history",
    "history_class",
    "readers",
    "reads",
    "reconcile",
    "restore",
    "revert",
    "trail",
    "transaction",
]
