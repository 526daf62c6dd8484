"""Values that the history holds in another form, made in Python: the database never has the key.

Before rows are recorded, the values of such columns are read as they are stored, locked, and what the history shall
hold of them goes back with the statement that writes it, as one document by the rows' keys.  No value goes along.
Imports model, ddl, privacy, and of capture nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy.engine import Connection

from ..ddl.backend import Backend, Batch, Image, Key, Target
from ..model import AuditedTable
from ..privacy import keyed_digest, keys_of

CHUNK: Final = 200
"""How many rows are recorded by one statement, whose size the document adds to."""

Protect = Callable[[str], str]


def require_keys(audited: AuditedTable) -> None:
    """Make sure that there is a key, before anything is written.

    Raises:
        UnusableKey: if there is none.
    """
    if audited.protected:
        keys_of(audited)


def protect(connection: Connection, backend: Backend, target: Target, batch: Batch) -> Batch:
    """Give a batch with the document of what the history shall hold, and with images that hold nothing else."""
    audited = target.audited
    if not audited.protected:
        return batch
    old = {image.key: backend.image_values(image) for image in batch.images}
    keys = list(dict.fromkeys((*batch.inserted, *batch.deleted, *old)))
    digest = _digester(audited)
    document: dict[str, dict[str, str | None]] = {}
    for key, label, values in backend.read_protected(connection, target, keys):
        document[label] = _members(audited, backend, digest, values, old.get(key))
    images = [Image(image.key, backend.image_of(_bare(audited, old[image.key]))) for image in batch.images]
    return Batch(batch.inserted, images, batch.deleted, json.dumps(document))


def protected_rows(connection: Connection, backend: Backend, target: Target, keys: Sequence[Key]) -> str:
    """Give the document for rows that are recorded as they stand."""
    digest = _digester(target.audited)
    rows = backend.read_protected(connection, target, keys)
    return json.dumps({label: _members(target.audited, backend, digest, values, None) for _key, label, values in rows})


def _digester(audited: AuditedTable) -> Protect:
    secret = keys_of(audited).digest_keys[0]
    return lambda text: keyed_digest(secret, text)


def _members(
    audited: AuditedTable, backend: Backend, digest: Protect, values: Sequence[Any], old: Sequence[Any] | None
) -> dict[str, str | None]:
    """Give, for the column at each place, its new form ``n`` and, where it changed, the JSON of its old one, ``b``."""
    members: dict[str, str | None] = {}
    for place, column in enumerate(audited.protected):
        now = backend.protected_text(values[place])
        members[f"n{place}"] = None if now is None else digest(now)
        if old is None:
            continue
        before = backend.protected_text(old[audited.columns.index(column)])
        if before != now:
            members[f"b{place}"] = "null" if before is None else json.dumps(digest(before))
    return members


def _bare(audited: AuditedTable, values: Sequence[Any]) -> list[Any]:
    return [None if column.protected else value for column, value in zip(audited.columns, values, strict=True)]
