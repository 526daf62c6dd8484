"""The vectors of ``docs/format/canonical.md``."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from decimal import Decimal
from typing import Any

from sa_audit.proof import Array, Interval, form
from sa_audit.proof.cbor import decode, encode
from sa_audit.proof.readable import text_of
from tests.vectors.samples import DESCRIPTOR, RENAMED, SALT, UTC, encoded_row, history_values

ZONE = dt.timezone(dt.timedelta(hours=5, minutes=30))
VALUES: list[tuple[str, Any]] = [
    *(("int", value) for value in (0, 1, 23, 24, 255, 256, 65535, 65536, 2**32, 2**63 - 1, 2**64 - 1, 2**64)),
    *(("int", value) for value in (-1, -24, -25, -256, -257, -(2**63), -(2**64), -(2**64) - 1)),
    *(("decimal", Decimal(text)) for text in ("0", "-0", "0.00", "12.50", "12.5", "-0.001", "1E+3", "1E-7", "100")),
    *(("decimal", Decimal(text)) for text in ("123456789012345678901234567890.12345678901234567890", "NaN")),
    *(("decimal", Decimal(text)) for text in ("Infinity", "-Infinity")),
    *(("float64", value) for value in (0.0, -0.0, 1.0, 1.0000000000000002, 0.1, 5e-324, 1.7976931348623157e308)),
    *(("float64", value) for value in (float("nan"), float("inf"), float("-inf"), -1.5)),
    *(("float32", value) for value in (0.0, -0.0, 0.5, 16777216.0, float("nan"), float("inf"))),
    *(("bool", value) for value in (False, True)),
    *(("text", value) for value in ("", " ", "a", "a ", "A", "\u00e9", "e\u0301", "\U0001f600", "0", "null", "\x00")),
    *(("enum", value) for value in ("open", "OPEN")),
    *(("json", value) for value in ("null", "1.10", "1.1", "1e2", "100", '{"a": 1}', '{"a":1}', '""')),
    *(("bytes", value) for value in (b"", b"\x00", b"a", bytes(range(256)))),
    ("uuid", uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")),
    *(("bits", value) for value in ("", "0", "00", "101")),
    *(
        ("instant", value)
        for value in (
            dt.datetime(1970, 1, 1, tzinfo=UTC),
            dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            dt.datetime(2026, 3, 31, 23, 59, 59, 1, tzinfo=UTC),
            dt.datetime(2026, 4, 1, 5, 29, 59, 1, tzinfo=ZONE),
            dt.datetime(1, 1, 1, tzinfo=UTC),
            dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        )
    ),
    *(("datetime", value) for value in (dt.datetime(1970, 1, 1), dt.datetime(2026, 3, 31, 23, 59, 59, 1))),
    *(("date", value) for value in (dt.date(1970, 1, 1), dt.date(1969, 12, 31), dt.date(1, 1, 1))),
    *(("time", value) for value in (dt.time(0), dt.time(23, 59, 59, 999999))),
    *(("timetz", value) for value in (dt.time(12, tzinfo=UTC), dt.time(12, tzinfo=ZONE))),
    *(("duration", value) for value in (dt.timedelta(0), dt.timedelta(days=1), dt.timedelta(microseconds=-1))),
    *(("interval", value) for value in (Interval(0, 1, 0), Interval(0, 0, 86_400_000_000), Interval(1, -1, 5))),
    ("encrypted", b"\x01\x02\x03"),
    ("printed", "[1,10)"),
    *(("stored", value) for value in (1, 1.0, "1", b"1", -0.0, "", b"", "a\udcff")),
    *(("int[]", value) for value in ([], [1], [1, None], [[1, 2], [3, 4]], Array(((0, 2),), (1, 2)))),
    *(("text[]", value) for value in ([""], ["a,b"], ["a", "b"], [None])),
]

FORMS: list[tuple[str, Any]] = [
    *(("instant", item) for item in ("Infinity", "-Infinity", -62_135_596_800_000_001, 253_402_300_800_000_000)),
    *(("datetime", item) for item in ("Infinity", -62_135_596_800_000_000, 253_402_300_799_999_999)),
    *(("date", item) for item in ("-Infinity", -719_163, -719_162, 2_932_896, 2_932_897)),
    *(("time", item) for item in (-1, 86_400_000_000, 86_400_000_001, 3_020_399_000_000)),
    *(("timetz", item) for item in ([86_400_000_000, -3600], [-1, 0])),
]
"""Forms that a database gives, and that no Python value has."""

NULLS = ("int", "text", "float64", "json", "bytes", "int[]", "stored", "interval")
"""NULL has the form null whatever its type."""

BAD_CBOR: list[tuple[str, str]] = [
    ("nothing", ""),
    ("a number in two bytes where one will do", "1817"),
    ("a number in three bytes where two will do", "1900ff"),
    ("a number in five bytes where three will do", "1a0000ffff"),
    ("a number in nine bytes where five will do", "1b00000000ffffffff"),
    ("a byte string that ends too early", "42ff"),
    ("a text that is not UTF-8", "61ff"),
    ("a text with half of a surrogate pair", "63eda080"),
    ("an overlong form of UTF-8", "62c080"),
    ("an array that ends too early", "8201"),
    ("an array that claims 2**32 items", "9b0000000100000000"),
    ("an indefinite array", "9f01ff"),
    ("an indefinite text", "7f6161ff"),
    ("a map", "a10102"),
    ("a float", "f93c00"),
    ("undefined", "f7"),
    ("a simple value", "f820"),
    ("a tag that is not used", "c001"),
    ("a big integer that fits 64 bits", "c248ffffffffffffffff"),
    ("a big integer with a leading zero", "c24a00010000000000000000"),
    ("a big integer of text", "c26161"),
    ("a tag of a tag", "c2c2c2c2"),
    ("a reserved length", "1c"),
    ("something behind the end", "0101"),
    ("17 arrays in each other", "81" * 17 + "80"),
]


def described(value: Any) -> str:
    """Give a value as a person reads it."""
    return ascii(value)


def value_case(type_: str, said: str, item: Any) -> dict[str, Any]:
    """Give a value with its form, and its text in a readable file."""
    encoded = encode(item)
    return {"type": type_, "value": said, "form": encoded.hex(), "text": text_of(type_, decode(encoded))}


def canonical() -> dict[str, Any]:
    """Give the vectors of ``canonical.md``."""
    rows = [
        ("a row", DESCRIPTOR, history_values(7), SALT),
        ("NULL for the text", DESCRIPTOR, history_values(7, owner=None), SALT),
        ("an empty text", DESCRIPTOR, history_values(7, owner=""), SALT),
        ("1 ulp more", DESCRIPTOR, history_values(7, rate=0.10000000000000002), SALT),
        ("a microsecond later", DESCRIPTOR, history_values(7, audit_at=dt.datetime(2026, 4, 1, tzinfo=UTC)), SALT),
        ("1.1 for 1.10 in JSON", DESCRIPTOR, history_values(7, audit_before='{"balance": "1.1"}'), SALT),
        ("no salt", DESCRIPTOR, history_values(7), b""),
        ("the column renamed", RENAMED, history_values(7), SALT),
    ]
    return {
        "values": [
            *(value_case(type_, "NULL", form(type_, None)) for type_ in NULLS),
            *(value_case(type_, described(value), form(type_, value)) for type_, value in VALUES),
            *(value_case(type_, f"as stored: {described(item)}", item) for type_, item in FORMS),
        ],
        "descriptors": [
            {"name": name, "encoded": schema.encode().hex(), "digest": schema.digest.hex()}
            for name, schema in (("as declared", DESCRIPTOR), ("a column renamed", RENAMED))
        ],
        "rows": [
            {
                "name": name,
                "descriptor": schema.encode().hex(),
                "row": (row := encoded_row(schema, values, salt)).hex(),
                "digest": hashlib.sha256(row).hexdigest(),
            }
            for name, schema, values, salt in rows
        ],
        "refused": [{"why": why, "item": item} for why, item in BAD_CBOR],
        "refused_forms": [{"type": type_, "item": item} for type_, item in bad_forms()],
        "refused_rows": [{"why": why, "descriptor": DESCRIPTOR.encode().hex(), "row": row} for why, row in bad_rows()],
    }


def bad_forms() -> list[tuple[str, str]]:
    """Give items that are not forms of a type."""
    texts = [("decimal", text) for text in ("-0", "1.0", "01", "1e2", ".5", "5.", "+1", "nan", "", "1 ", "\u0661")]
    texts += [("instant", "infinity"), ("bits", "2"), ("int", "1"), ("uuid", "")]
    raw = [("float64", "7ff8000000000001"), ("float64", "fff8000000000000"), ("float32", "7fc00001"), ("uuid", "00")]
    others: list[tuple[str, Any]] = [
        ("bool", 1),
        ("int", True),
        ("text", b"a"),
        ("bytes", "a"),
        ("interval", [1, 2]),
        ("interval", [1, 2, "3"]),
        ("timetz", [1]),
        ("stored", ["real", bytes(4)]),
        ("stored", ["text", b"a"]),
        ("stored", True),
        ("int[]", [1, 2]),
        ("int[]", [[[1, 2]], [1]]),
        ("int[]", [[[1, 0]], []]),
        ("int[]", [[], [1]]),
        ("int[]", [[[1, 1]], ["a"]]),
        ("date", "today"),
    ]
    items = [(type_, encode(text)) for type_, text in texts]
    items += [(type_, encode(bytes.fromhex(digits))) for type_, digits in raw]
    items += [(type_, encode(item)) for type_, item in others]
    return [(type_, item.hex()) for type_, item in items]


def bad_rows() -> list[tuple[str, str]]:
    """Give rows that are not rows of the descriptor."""
    good = encoded_row(DESCRIPTOR, history_values(7))
    forms = [form(c.type, v) for c, v in zip(DESCRIPTOR.columns, history_values(7).values(), strict=True)]
    digest = bytes(DESCRIPTOR.digest)

    def row(label: str, schema: bytes, salt: bytes, values: list[Any]) -> str:
        return encode([label, schema, salt, values]).hex()

    return [
        ("another version", row("sa_audit/row/v2", digest, SALT, forms)),
        ("another schema", row("sa_audit/row/v1", bytes(32), SALT, forms)),
        ("a short salt", row("sa_audit/row/v1", digest, SALT[:8], forms)),
        ("a value less", row("sa_audit/row/v1", digest, SALT, forms[:-1])),
        ("a value more", row("sa_audit/row/v1", digest, SALT, [*forms, None])),
        ("two values swapped", row("sa_audit/row/v1", digest, SALT, [*forms[:8], *forms[9:10], forms[8], *forms[10:]])),
        ("cut off", good[:-1].hex()),
        ("something behind", good.hex() + "00"),
    ]
