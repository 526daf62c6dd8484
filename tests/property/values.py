"""Values to write: of each column's type, such as it holds exactly on every database, the awkward ones often.

They come from a `Random` whose seed the example draws: what a database does (whether a lock is to be had, say) then
never changes what the example goes on to draw.
"""

from __future__ import annotations

import datetime as dt
import math
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

import sqlalchemy as sa

from tests.property.models import Instant, Kind

TEXTS = (
    "",
    "ann",
    "ANN",
    "Ann ",
    "o'neil",
    'say "x"',
    "back\\slash",
    "a:b %s {c} $1 ?",
    "null",
    "12.50",
    "line\nbreak\ttab",
    "\x01\x1f\x7f",
    "\u2028é€😀",
)
INTEGERS = (0, 1, -1, 127, 10**9, -(10**9))
BIG_INTEGERS = (2**63 - 1, -(2**63), 2**53 + 1, *INTEGERS)
FLOATS = (0.0, 1.0, 0.1, -2.5, 1e-300, 1.7976931348623157e308)
PRICES = ("0.00", "1.00", "-0.01", "9999999999.99", "12.50")
FIRST, LAST = dt.datetime(1000, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)

Maker = Callable[[Random], Any]


def text(random: Random) -> str:
    """Give an awkward text, or a few characters of any kind but NUL and surrogates."""
    if random.random() < 0.7:
        return random.choice(TEXTS)
    first, last = random.choice(((1, 0x2FF), (1, 0xD7FF), (0xE000, 0x10FFFF)))
    return "".join(chr(random.randint(first, last)) for _ in range(3))


def real(random: Random) -> float:
    """Give a finite float of any size; no negative zero and nothing subnormal, which not every database keeps."""
    if random.random() < 0.5:
        return random.choice(FLOATS)
    value: float = struct.unpack("d", random.randbytes(8))[0]
    return value if math.isfinite(value) and abs(value) > 2.3e-308 else 0.25


def moment(random: Random) -> dt.datetime:
    """Give a naive moment, of microseconds or of whole seconds."""
    seconds = random.randrange(int((LAST - FIRST).total_seconds()))
    micro = random.choice((0, 1, 500000, random.randrange(10**6)))
    return FIRST + dt.timedelta(seconds=seconds, microseconds=micro)


def document(random: Random) -> dict[str, Any]:
    """Give a JSON object."""
    scalars: tuple[Any, ...] = (None, True, False, 0, 1, 2**53, "1", [], [1, "a"], {"a": None})
    return {text(random): random.choice((*scalars, text(random))) for _ in range(random.randrange(3))}


def _integer(random: Random) -> Any:
    return random.choice([*INTEGERS, *range(2, 9)])


def _price(random: Random) -> Decimal:
    if random.random() < 0.5:
        return Decimal(random.choice(PRICES))
    return Decimal(random.randint(-(10**9), 10**9)).scaleb(-2)


def _instant(random: Random) -> dt.datetime:
    return moment(random).replace(year=random.randint(1901, 2099), day=1, tzinfo=dt.UTC)


_MAKERS: dict[type[Any], Maker] = {
    sa.Enum: lambda random: random.choice(list(Kind)),
    sa.String: text,
    sa.BigInteger: lambda random: random.choice((*BIG_INTEGERS, random.randint(-(2**63), 2**63 - 1))),
    sa.Integer: _integer,
    sa.Float: real,
    sa.Numeric: _price,
    sa.Boolean: lambda random: random.random() < 0.5,
    sa.Date: lambda random: moment(random).date(),
    sa.Time: lambda random: moment(random).time(),
    sa.Interval: lambda random: dt.timedelta(seconds=random.randrange(10**6)),
    Instant: _instant,
    sa.DateTime: moment,
    sa.LargeBinary: lambda random: random.choice((b"", b"\0", bytes(range(256)), random.randbytes(5))),
    sa.JSON: document,
    sa.Uuid: lambda random: uuid.UUID(int=random.getrandbits(128), version=4),
}


def value_of(column: sa.Column[Any], random: Random) -> Any:
    """Give a value for a column, now and then NULL where it may be."""
    if column.nullable and random.random() < 0.2:
        return None
    return next(make for kind, make in _MAKERS.items() if isinstance(column.type, kind))(random)


def settable(table: sa.Table) -> list[sa.Column[Any]]:
    """Give the columns that the application fills with values of any kind."""
    return [
        column
        for column in table.columns
        if not column.primary_key
        and not column.foreign_keys
        and column.computed is None
        and column.key not in ("type", "version", "touched")
    ]
