"""Running tests with the other way of capture: the same models, the same assertions, another writer of the history."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sa_audit
from sa_audit.model import Configuration
from sa_audit.model.history import Trail, known_trails


def default_capture() -> str:
    """Return who writes the history in tests that don't ask for both: "session", or `SA_AUDIT_TEST_CAPTURE`."""
    return os.environ.get("SA_AUDIT_TEST_CAPTURE", "session")


@contextmanager
def captured_by(capture: str) -> Iterator[None]:
    """Have all models that leave it to the default captured by the session or by triggers while the block runs."""
    if capture == "session":
        yield
        return
    turned = [trail for trail in known_trails() if trail.configuration.capture == "session"]
    defaults: list[Any] = [Configuration.__init__.__kwdefaults__, sa_audit.configure.__kwdefaults__]
    for default in defaults:
        default["capture"] = capture
    for trail in turned:
        _turn(trail, "trigger")
    try:
        yield
    finally:
        for default in defaults:
            default["capture"] = "session"
        for trail in turned:
            _turn(trail, "session")


def _turn(trail: Trail, capture: str) -> None:
    """Change what `configure()` lets nobody change."""
    trail.configuration = replace(trail.configuration, capture=capture)
    trail._note_captures(bool(trail.captured()))
