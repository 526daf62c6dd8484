"""What the live database holds of a trail: its tables as schema descriptors, its rows in canonical forms, its log.

The sealer and the verifier read through here, each by itself, and share nothing else of the database.
What it should hold, who has which rights on it, and the protection level reached, stand beside: drift, rights, level.
Imports model, ddl and proof.
"""

from .database import CatalogDatabase, LiveColumn, by_itself, catalog_for
from .describe import describe
from .log import Block, block_of_leaf, blocks, find_leaf, last_block, read_tile
from .rows import RowReader, SealedRow
from .tables import SealedTable, sealed_tables, trail_at
from .window import Unsealed, unsealed

__all__ = [
    "Block",
    "CatalogDatabase",
    "LiveColumn",
    "RowReader",
    "SealedRow",
    "SealedTable",
    "Unsealed",
    "block_of_leaf",
    "blocks",
    "by_itself",
    "catalog_for",
    "describe",
    "find_leaf",
    "last_block",
    "read_tile",
    "sealed_tables",
    "trail_at",
    "unsealed",
]
