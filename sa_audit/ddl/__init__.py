"""ENFORCE: the text of guards and of recording, one backend for each database, and the DDL events.

Imports model only.
"""

from . import events
from .backend import Backend, Batch, Entry, Image, Recorded, Target, backend_for
from .objects import TrailObject

__all__ = ["Backend", "Batch", "Entry", "Image", "Recorded", "Target", "TrailObject", "backend_for", "events"]
