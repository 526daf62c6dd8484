"""ENFORCE: the text of guards and of recording, one backend for each database, and the DDL events.

Imports model only.
"""

from . import events
from .backend import Backend, Batch, Entry, Image, Recorded, Target, backend_for
from .capture import CaptureObject

__all__ = ["Backend", "Batch", "CaptureObject", "Entry", "Image", "Recorded", "Target", "backend_for", "events"]
