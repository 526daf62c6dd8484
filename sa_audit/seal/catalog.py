"""The catalog, sealed with the rows: its facts stand in the log, whole, whenever they are others than before.

``docs/format/entries.md``, "Catalog".  Imports the room's own parts, catalog, proof and model.
"""

from __future__ import annotations

from sqlalchemy.engine import Connection

from ..catalog import CatalogDatabase
from ..catalog.fingerprint import read_facts
from ..model.history import Trail
from ..proof.fingerprint import catalog_entries, fingerprint_of
from ..proof.types import Digest
from .building import Run
from .state import State


def catalog_runs(
    connection: Connection, database: CatalogDatabase, trail: Trail, state: State
) -> tuple[Digest, list[Run]]:
    """Give the fingerprint of the catalog as it stands, and the entries that say so; none if it is the known one.

    Args:
        connection: in the transaction, its settings pinned.
        database: how to read it.
        trail: the trail.
        state: what is sealed.
    """
    known = [
        (table.descriptor.schema, table.descriptor.name)
        for table in state.tables.values()
        if table.descriptor is not None
    ]
    entries = catalog_entries(read_facts(connection, database, trail, known))
    fingerprint = fingerprint_of(entries)
    return fingerprint, [] if fingerprint == state.catalog else [Run(entries)]
