"""Reads the vectors, and turns the cases of a file into parameters of a test."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent.parent / "vectors"


@functools.cache
def vectors(name: str) -> dict[str, Any]:
    """Give the content of a file of vectors."""
    content: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text(encoding="ascii"))
    return content


def cases(name: str, *keys: str) -> list[Any]:
    """Give the cases under some keys of a file, each with a name to show."""
    found: Any = vectors(name)
    for key in keys:
        found = found[key]
    return [pytest.param(case, id=_name(case, number)) for number, case in enumerate(found)]


def _name(case: Any, number: int) -> str:
    if not isinstance(case, dict):
        return str(number)
    said = case.get("why") or case.get("name") or case.get("value") or ""
    return f"{number}-{said}"[:60]
