"""The log as it stands in the database: blocks, tiles, and the leaf of a row.

Nothing here is trusted: the sealer compares it with its own state, the verifier recomputes it.
Imports the room's own parts, model and proof.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import IntegrityFinding, MalformedProof
from ..model.history import Trail
from ..proof.blocks import unpack_entries
from ..proof.cbor import decode, encode, encode_fast
from ..proof.merkle import Frontier, leaf_hash
from ..proof.tiles import WIDTH, Tile
from .database import CatalogDatabase

AHEAD: Final = 4
"""How many blocks are fetched at a time, of which each takes up to some MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A row of ``audit_block``; -1, or no bytes, stands for what a column can't hold."""

    number: int
    first: int
    count: int
    data: bytes
    tiles: bytes

    def entries(self) -> list[bytes]:
        """Give the encoded entries.

        Raises:
            MalformedProof: if they are not an entry bundle.
        """
        return unpack_entries(self.data)


def blocks(connection: Connection, trail: Trail, *, since: int = 0) -> Iterator[Block]:
    """Yield the blocks of the log by number, one in memory at a time.

    Args:
        connection: to the database.
        trail: whose log.
        since: the number of the first one.
    """
    number, behind = _raw(trail)[0], _raw(trail)[0] >= since
    while True:
        row = connection.execute(sa.select(*_raw(trail)).where(behind).order_by(number).limit(1)).first()
        if row is None:
            return
        yield _block(row)
        if not isinstance(row[0], (int, float)):
            return  # it comes behind all numbers, and whoever looks at it says what it is
        behind = number > row[0]


def blocks_ahead(connection: Connection, database: CatalogDatabase, trail: Trail) -> Iterator[Block]:
    """Yield all blocks as :func:`blocks` does; where the database can, the next ones are fetched meanwhile.

    Args:
        connection: in a transaction with pinned settings.
        database: how to read it.
        trail: whose log.
    """
    if not database.reads_ahead:
        yield from blocks(connection, trail)
        return
    table = database.name_of(database.schema(connection, trail.block), trail.block.name)
    select = f"SELECT {', '.join(COLUMNS)} FROM {table} ORDER BY number"
    with contextlib.closing(database.batches(connection, select, {}, size=AHEAD)) as batches:
        for batch in batches:
            yield from map(_block, batch)


def last_block(connection: Connection, trail: Trail) -> Block | None:
    """Give the last block of the log, or None if it is empty."""
    return _first(connection, sa.select(*_raw(trail)).order_by(trail.block.c.number.desc()).limit(1))


def block_of_leaf(connection: Connection, trail: Trail, leaf: int) -> Block | None:
    """Give the block that says that it holds a leaf."""
    first = trail.block.c.first_leaf
    return _first(connection, sa.select(*_raw(trail)).where(first <= leaf).order_by(first.desc()).limit(1))


def block_numbered(connection: Connection, trail: Trail, number: int) -> Block | None:
    """Give the block of a number, or None."""
    return _first(connection, sa.select(*_raw(trail)).where(trail.block.c.number == number))


COLUMNS: Final = ("number", "first_leaf", "leaves", "entries", "tiles")


def _raw(trail: Trail, *names: str) -> list[sa.ColumnElement[Any]]:
    """Give the columns of a block, all if none is named, as the driver gives them: SQLite holds whatever was put."""
    table = trail.block
    return [sa.type_coerce(table.c[name], sa.types.NullType()).label(name) for name in names or COLUMNS]


def _first(connection: Connection, statement: sa.Select[Any]) -> Block | None:
    row = connection.execute(statement).first()
    return None if row is None else _block(row)


def _block(row: Sequence[Any]) -> Block:
    number, first, count = map(integer, row[:3])
    return Block(number=number, first=first, count=count, data=octets(row[3]) or b"", tiles=octets(row[4]) or b"")


def integer(value: object) -> int:
    """Give a number of the log, or -1, which is none, for what is not an integer."""
    return value if isinstance(value, int) else -1


def octets(value: object) -> bytes | None:
    """Give bytes of the log, or None for what is no bytes."""
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else None


# -- rows ----------------------------------------------------------------------------------


def find_leaf(connection: Connection, trail: Trail, table: int, row: int) -> tuple[int, bytes] | None:
    """Look for the leaf of a row: its index and its entry, or None.

    Args:
        connection: to the database.
        trail: whose log.
        table: the table's number in the log.
        row: the row's id.
    """
    sealed = trail.sealed
    statement = (
        sa.select(sealed.c.block)
        .where(sealed.c.table_id == table, sealed.c.last_row >= row, sealed.c.first_row <= row)
        .order_by(sealed.c.block.desc())
    )
    start = encode_fast((1, 1, table, row))[1:]
    block = trail.block
    for number in connection.scalars(statement).all():
        part = sa.select(*_raw(trail, "first_leaf", "entries")).where(block.c.number == number)
        for first, raw in connection.execute(part):
            data = octets(raw) or b""
            for position, entry in enumerate(unpack_entries(data) if start in data else ()):
                if entry.startswith(start, 1):
                    return integer(first) + position, entry
    return None


# -- tiles ---------------------------------------------------------------------------------


def pack_tiles(tiles: Iterable[Tile]) -> bytes:
    """Give the bytes of the tiles of a block: a CBOR array of ``[level, index, hashes]``.

    Left out is a partial tile of level 0, which the entries themselves give.
    """
    return encode([[tile.level, tile.index, tile.data] for tile in tiles if tile.level or tile.full])


def unpack_tiles(data: bytes) -> list[Tile]:
    """Read the tiles of a block.

    Raises:
        MalformedProof: if they are none.
    """
    match decode(data, what="tiles of a block"):
        case tuple(items):
            return [_tile(item) for item in items]
        case _:
            raise MalformedProof("the tiles of a block are not an array")


def _tile(item: object) -> Tile:
    match item:
        case (int(level), int(index), bytes(data)):
            return Tile(level, index, data)
        case _:
            raise MalformedProof(f"{item!r:.80} is not a tile")


def read_tile(connection: Connection, trail: Trail, level: int, index: int, width: int) -> Tile:
    """Give a tile, at least so wide; see :data:`sa_audit.proof.tiles.TileReader`.

    Raises:
        IntegrityFinding: if it is not there.
    """
    if level == 0 and width < WIDTH:
        return _from_entries(connection, trail, index, width)
    last, first = ((index * WIDTH + width) << (8 * level)) - 1, trail.block.c.first_leaf
    part = sa.select(*_raw(trail, "tiles")).where(first <= last).order_by(first.desc()).limit(1)
    data = octets(connection.scalar(part))
    for tile in unpack_tiles(data) if data is not None else ():
        if (tile.level, tile.index) == (level, index) and tile.width >= width:
            return tile
    raise IntegrityFinding(f"tile {level}/{index} with {width} hashes is not in the log")


def _from_entries(connection: Connection, trail: Trail, index: int, width: int) -> Tile:
    """Make a partial tile of level 0 from the entries of the blocks that it covers."""
    first, end = index * WIDTH, index * WIDTH + width
    block = block_of_leaf(connection, trail, first)
    hashes: list[bytes] = []
    while block is not None and block.first < end:
        entries = block.entries()
        hashes += [leaf_hash(entry) for entry in entries[max(first - block.first, 0) : end - block.first]]
        reached = block.first + len(entries) >= end
        block = None if reached else block_numbered(connection, trail, block.number + 1)
    if len(hashes) != width:
        raise IntegrityFinding(f"tile 0/{index}: expected {width} leaves in the log, got {len(hashes)}")
    return Tile(0, index, b"".join(hashes))


def frontier_of_log(connection: Connection, trail: Trail) -> Frontier:
    """Recompute the frontier of the whole log from its entries.

    Raises:
        IntegrityFinding: if a block is not where it says it is.
    """
    frontier = Frontier()
    for block in blocks(connection, trail):
        entries = block.entries()
        if block.first != frontier.size or block.count != len(entries):
            raise IntegrityFinding(
                f"block {block.number} says that it holds {block.count} leaves from {block.first} on: "
                f"expected {len(entries)} from {frontier.size} on"
            )
        frontier = frontier.append(map(leaf_hash, entries))
    return frontier
