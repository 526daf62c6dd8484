"""ADOPT: what stood in a database before its trail: the rows that it held, and the history that another tool wrote.

Imports model, ddl, capture, query, errors and SQLAlchemy.
"""

from .baseline import BATCH, PATIENCE, Baselined, Step, baseline
from .continuum import TRANSACTIONS, Imported, import_continuum
from .versions import Naming

__all__ = [
    "BATCH",
    "PATIENCE",
    "TRANSACTIONS",
    "Baselined",
    "Imported",
    "Naming",
    "Step",
    "baseline",
    "import_continuum",
]
