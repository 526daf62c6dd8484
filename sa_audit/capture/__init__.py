"""RECORD: the context, the unit of work, statements, and the listeners that call them.

Imports model and ddl.
"""

from . import access, listeners, readers, revealing
from .context import Context, context, current_context
from .events import record

__all__ = ["Context", "access", "context", "current_context", "listeners", "readers", "record", "revealing"]
