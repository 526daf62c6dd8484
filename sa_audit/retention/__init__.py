"""PRUNE: history that is older than its model's retention goes, in two steps, with a proof of what went and why.

``docs/retention.md`` tells the whole of it.  Imports model, ddl, capture, query, adoption, catalog, proof, errors and
SQLAlchemy.
"""

from __future__ import annotations

from .pruning import Pruned, prune

__all__ = ["Pruned", "prune"]
