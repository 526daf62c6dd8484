"""Names that fit every database: at most 63 bytes, the rest replaced by a hash.  Imports nothing of the library."""

from __future__ import annotations

import hashlib
from typing import Final

MAX_NAME: Final = 63


def short_name(name: str, limit: int = MAX_NAME) -> str:
    """Give a name of at most ``limit`` bytes: its own, or its start and eight hex digits of its hash."""
    encoded = name.encode()
    if len(encoded) <= limit:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return encoded[: limit - 9].decode(errors="ignore") + "_" + digest


def is_name(given: object) -> bool:
    """Tell whether something can be a name: text that is not empty."""
    return isinstance(given, str) and bool(given)
