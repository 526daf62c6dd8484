"""``export``: the changes as lines of JSON or CSV, as Parquet, or as a bundle that is checked with no database.

Imports query, verification, model and rich only.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import sqlalchemy as sa
from rich.console import RenderableType
from sqlalchemy.orm import Session

from ..proof.policy import Policy
from ..query import Change, history, trail
from ..query.entity import subject_of
from ..verification.bundling import Selection, export_bundle
from .failure import WrongUsage
from .models import Entity
from .parquet import write_table
from .results import change_json, plain

PAGE: Final = 500
FORMS: Final = ("jsonl", "csv", "parquet")
COLUMNS: Final = ("audit_id", "recorded_at", "actor", "reason", "entity", "identity", "operation", "diff", "state")


@dataclass(frozen=True, slots=True)
class BundleResult:
    """A bundle.  JSON: ``{"bundle": path, "rows": number}``."""

    path: Path
    rows: int

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return {"bundle": str(self.path), "rows": self.rows}

    def render(self) -> RenderableType:
        """Give it for people."""
        return plain(f"{self.path}: {self.rows} rows, with all that is needed to check them; see its README.txt")


def make_bundle(
    engine: sa.Engine,
    metadata: sa.MetaData,
    path: Path,
    vkey: Path | None,
    entity: Entity | None,
    identity: Any,
    *,
    complete: bool,
) -> BundleResult:
    """Write a bundle of everything, of a model, or of one of its rows.

    Raises:
        WrongUsage: without a verifier key, or if the file is there.
    """
    if vkey is None:
        raise WrongUsage("--bundle needs --vkey FILE: the verifier key, or the policy, that goes along")
    tables = None if entity is None else _tables(entity, identity)
    text = "everything" if entity is None else entity.name
    if identity is not None:
        text = f"{text} {identity!r}"
    selection = Selection(text=text, tables=tables, complete=complete)
    try:
        rows = export_bundle(engine, path, Policy.load(vkey), selection, metadata=metadata)
    except FileExistsError as error:
        raise WrongUsage(f"{path} is there already, and no file is overwritten") from error
    return BundleResult(path, rows)


def _tables(entity: Entity, identity: Any) -> dict[str, dict[str, Any] | None]:
    values = identity if isinstance(identity, tuple) else (identity,)
    return {
        str(part.history.name): None
        if identity is None
        else {column.key: value for column, value in zip(part.key, values, strict=True)}
        for part in subject_of(entity.target).parts
    }


def write_changes(
    engine: sa.Engine, metadata: sa.MetaData, entity: Entity | None, identity: Any, form: str, out: TextIO
) -> None:
    """Write changes, oldest first, one a line or row.

    Args:
        engine: to the database.
        metadata: of the trail.
        entity: whose changes; None for all.
        identity: of one row, or None.
        form: one of :data:`FORMS`.
        out: where to; its bytes for ``parquet``.

    Raises:
        WrongUsage: if bytes would go to a terminal.
        CantRun: if what ``parquet`` needs is not installed.
    """
    rows = (change_json(change) for change in _changes(engine, metadata, entity, identity))
    if form == "jsonl":
        out.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        return
    cells = (_cells(row) for row in rows)
    if form == "parquet":
        if out.isatty():
            raise WrongUsage("--format parquet gives bytes: send them to a file, with > changes.parquet")
        write_table(cells, COLUMNS, out.buffer)
        return
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    said = {**row, "actor": row["transaction"]["actor"], "reason": row["transaction"]["reason"]}
    return {name: _cell(said[name]) for name in COLUMNS}


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) if isinstance(value, (dict, list)) else value


def _changes(engine: sa.Engine, metadata: sa.MetaData, entity: Entity | None, identity: Any) -> Iterator[Change]:
    with Session(engine) as session:
        if entity is not None and identity is not None:
            yield from history(session, entity.target, identity)
            return
        after: str | None = None
        while True:
            target = None if entity is None else entity.target
            page = trail(session, entity=target, base=metadata, limit=PAGE, after=after)
            yield from (entry for entry in page.entries if isinstance(entry, Change))
            if not page.next or page.next == after:
                return
            after = page.next
