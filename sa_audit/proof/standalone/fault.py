"""What is raised when something is not what the format says.  A part of ``verify.py``; see this package."""

from __future__ import annotations

# -- what is raised -----------------------------------------------------------------------

TREE_LIMIT = 2**63
ROW_LIMIT = 256 * 2**20


class Bad(Exception):
    """Something is not what the format says."""


def need(condition: object, why: str, *details: object) -> None:
    """Raise unless a condition holds."""
    if not condition:
        raise Bad(why.format(*details))
