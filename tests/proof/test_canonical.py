"""The canonical encoding, as laws: one form for one value, another form for another value, strict reading."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import struct
import unicodedata
import uuid
from decimal import Decimal
from typing import Any

import cbor2
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sa_audit.errors import MalformedProof, Unencodable
from sa_audit.proof import Array, Column, Descriptor, Interval, RowEncoder, RowEntry, decode_row, form
from sa_audit.proof.cbor import Item, decode, decode_at, encode, encode_fast, sequence
from sa_audit.proof.entries import row_entry
from sa_audit.proof.forms import TYPES, check_form
from sa_audit.proof.schema import ELEMENT_TYPES, is_type
from sa_audit.proof.types import RowDigest, SchemaDigest

Typed = tuple[str, Any]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SECONDS = st.integers(-50_000, 50_000).map(lambda seconds: dt.timezone(dt.timedelta(seconds=seconds)))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers() | st.sampled_from([2**64 - 1, 2**64, -(2**64), -(2**64) - 1]),
    "decimal": st.decimals(allow_nan=False).filter(lambda d: not d.is_snan()) | st.just(Decimal("NaN")),
    "float64": st.floats(),
    "float32": st.floats(width=32),
    "bool": st.booleans(),
    "text": TEXTS,
    "enum": TEXTS,
    "json": TEXTS,
    "bytes": st.binary(),
    "uuid": st.uuids(),
    "bits": st.text("01"),
    "instant": st.datetimes(timezones=st.just(dt.UTC) | SECONDS),
    "datetime": st.datetimes(),
    "date": st.dates(),
    "time": st.times(),
    "timetz": st.times(timezones=SECONDS),
    "duration": st.timedeltas(),
    "interval": st.builds(Interval, st.integers(), st.integers(), st.integers()),
    "encrypted": st.binary(),
    "printed": TEXTS,
    "stored": st.integers() | st.floats() | TEXTS | st.binary(),
}
ITEMS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary() | TEXTS,
    lambda inner: st.lists(inner).map(tuple),
    max_leaves=20,
)


def typed() -> st.SearchStrategy[Typed]:
    """Give a type and a value of it; NULL among them."""
    return st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name] | st.none()))


def identity(value: Any) -> Any:
    """Give what of a value the record has to tell apart."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack(">d", value)
    if isinstance(value, Decimal):
        return "NaN" if value.is_nan() else value
    if isinstance(value, dt.datetime):
        return value.replace(fold=0) if value.tzinfo is None else value.astimezone(dt.UTC)
    if isinstance(value, dt.time):
        return value.replace(tzinfo=None, fold=0), value.utcoffset()
    return value


# -- CBOR --------------------------------------------------------------------------------


@given(ITEMS)
def test_an_item_is_read_back(item: Item) -> None:
    """What is written is read as the same item, and of the same types."""
    assert repr(decode(encode(item))) == repr(item)


@given(ITEMS)
@example(2**64)
@example(-(2**64) - 1)
def test_cbor2_writes_and_reads_the_same(item: Item) -> None:
    """An encoder and decoder that others wrote agree."""
    data = encode(item)
    assert cbor2.dumps(item, canonical=True) == data
    assert cbor2.dumps(item) == data
    read = cbor2.loads(data)
    assert encode(read) == data


@given(st.lists(ITEMS).map(tuple))
def test_the_fast_way_writes_the_same(items: tuple[Item, ...]) -> None:
    """Rows are encoded through cbor2, and nothing may depend on it."""
    assert encode_fast(items) == encode(items)


def test_without_cbor2_the_slow_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra makes sealing fast, and is not needed to check."""
    monkeypatch.setattr("sa_audit.proof.cbor._cbor2_dumps", None)
    assert encode_fast(("a", 1, None)) == bytes.fromhex("83616101f6")


@given(st.binary(max_size=64))
@example(b"\xc2" * 5000)
@example(b"\x81" * 5000)
@example(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff")
def test_any_bytes_are_read_in_one_form_or_refused(data: bytes) -> None:
    """Whatever can be read is encoded to the very bytes it was read from; nothing else happens but the one error."""
    try:
        item = decode(data)
    except MalformedProof:
        return
    assert encode(item) == data


@given(st.lists(ITEMS))
def test_a_sequence_is_read_item_by_item(items: list[Item]) -> None:
    """Items one behind the other, and the offset of each end."""
    data = b"".join(encode(item) for item in items)
    assert list(sequence(data, what="sequence")) == items
    offset = 0
    for item in items:
        read, offset = decode_at(data, offset)
        assert read == item
    assert offset == len(data)


@pytest.mark.parametrize("item", [1.5, {"a": 1}, {1}, Decimal(1), bytearray(b"a"), dt.date(2026, 1, 1), object()])
def test_what_is_no_item_is_not_written(item: Any) -> None:
    """Only items are encoded; a value needs its form first."""
    with pytest.raises(Unencodable, match="has no canonical encoding"):
        encode([item])


def test_text_with_half_a_pair_is_not_written() -> None:
    """A lone surrogate is no character; either way of encoding says so."""
    for write in (encode, encode_fast):
        with pytest.raises(Unencodable, match="not valid Unicode"):
            write(["\ud800"])


def test_arrays_are_nested_16_deep_at_most() -> None:
    """The deepest that is written is the deepest that is read."""
    deep: Item = ()
    for _ in range(15):
        deep = (deep,)
    assert decode(encode(deep)) == deep
    with pytest.raises(Unencodable, match="nested more than 16"):
        encode((deep,))


# -- forms -------------------------------------------------------------------------------


def test_each_type_of_the_format_has_a_form() -> None:
    """The two lists of types are one."""
    assert set(TYPES) == {*ELEMENT_TYPES, "stored"} == set(VALUES)
    assert all(is_type(name) and is_type(name + "[]") for name in ELEMENT_TYPES)
    assert is_type("stored")
    assert not any(map(is_type, ("stored[]", "int[][]", "money", "")))


@given(typed())
def test_a_form_is_one_of_its_type(value: Typed) -> None:
    """What is written is recognised when it is read."""
    item = decode(encode(form(*value)))
    check_form(value[0], item)


@given(st.data())
def test_two_values_of_a_type_have_one_form_only_if_they_are_equal(data: st.DataObject) -> None:
    """Forms are injective: text bytewise, floats bitwise, moments as moments, numbers as numbers."""
    name = data.draw(st.sampled_from(sorted(VALUES)))
    first = data.draw(VALUES[name] | st.none())
    second = data.draw(VALUES[name] | st.none())
    same = encode(form(name, first)) == encode(form(name, second))
    alike = type(first) is type(second) and identity(first) == identity(second)
    assert same == alike


@given(TEXTS)
@example("\u00e9")
@example("\u1e9b\u0323")
def test_normal_forms_are_kept_apart(text: str) -> None:
    """An edit from one normal form of Unicode to another is an edit."""
    forms = {unicodedata.normalize(name, text) for name in ("NFC", "NFD", "NFKC", "NFKD")}
    assert len({encode(form("text", each)) for each in forms}) == len(forms)


@given(st.floats(allow_nan=False))
def test_the_next_float_has_another_form(value: float) -> None:
    """One ulp is found."""
    later = math.nextafter(value, math.inf)
    assume(later != value)
    assert form("float64", value) != form("float64", later)


@pytest.mark.parametrize("bits", ["7ff8000000000001", "fff8000000000000", "7ff0000000000001"])
def test_every_nan_has_one_form(bits: str) -> None:
    """Its payload means nothing, and differs between machines."""
    assert form("float64", struct.unpack(">d", bytes.fromhex(bits))[0]) == bytes.fromhex("7ff8000000000000")


@pytest.mark.parametrize("text", ["0", "-0", "0E+5", "0E-5", "-0.000"])
def test_every_zero_has_one_form(text: str) -> None:
    """Exact numbers know no negative zero and no scale."""
    assert form("decimal", Decimal(text)) == "0"


@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 40))
def test_a_wider_scale_changes_nothing(value: Decimal, zeros: int) -> None:
    """Trailing zeros behind the point are not recorded, however many digits there are."""
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    wider = Decimal((sign, (*digits, *[0] * zeros), exponent - zeros))
    assert form("decimal", wider) == form("decimal", value)
    assert Decimal(str(form("decimal", value))) == value


def test_a_decimal_is_not_rounded() -> None:
    """`Decimal.normalize` would round to the context's 28 digits."""
    text = "1" * 60 + "." + "2" * 60
    assert form("decimal", Decimal(text)) == text


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("int", True),
        ("int", 1.0),
        ("int", "1"),
        ("bool", 1),
        ("decimal", 1),
        ("decimal", 1.5),
        ("decimal", Decimal("sNaN")),
        ("decimal", Decimal("-NaN")),
        ("decimal", Decimal("NaN7")),
        ("decimal", Decimal("1E+1000000")),
        ("decimal", Decimal("1E-1000000")),
        ("float64", 1),
        ("float64", Decimal(1)),
        ("float32", 0.1),
        ("float32", 1e300),
        ("text", b"a"),
        ("text", "\ud800"),
        ("json", {"a": 1}),
        ("enum", 1),
        ("bytes", "a"),
        ("bytes", bytearray(b"a")),
        ("uuid", "00112233-4455-6677-8899-aabbccddeeff"),
        ("bits", "012"),
        ("instant", dt.datetime(2026, 1, 1)),
        ("datetime", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        ("date", dt.datetime(2026, 1, 1)),
        ("time", dt.time(1, tzinfo=dt.UTC)),
        ("timetz", dt.time(1)),
        ("duration", 1),
        ("interval", dt.timedelta(days=1)),
        ("interval", Interval(1, 2, 3.0)),  # type: ignore[arg-type]  # what is refused
        ("stored", True),
        ("stored", dt.date(2026, 1, 1)),
        ("stored", "\ud800"),
        ("int[]", [[1], [2, 3]]),
        ("int[]", [[1], 2]),
        ("int[]", [[]]),
        ("int[]", (1,)),
        ("int[]", ["1"]),
        ("int[]", Array(((1, 2),), (1,))),
        ("int[]", Array(((1, 0),), ())),
    ],
)
def test_a_value_of_another_type_is_refused(type_: str, value: Any) -> None:
    """What can't be encoded is not guessed at: sealing it must fail."""
    with pytest.raises(Unencodable):
        form(type_, value)


@pytest.mark.parametrize("type_", ["money", "stored[]", "int[][]", ""])
def test_an_unknown_type_is_refused(type_: str) -> None:
    """Also for NULL."""
    for value in (None, 1, [1]):
        with pytest.raises((MalformedProof, Unencodable)):
            form(type_, value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([], None),
        ([None], None),
        ([None], []),
        ([[1, 2], [3, 4]], [1, 2, 3, 4]),
        ([[1, 2], [3, 4]], [[1, 2, 3, 4]]),
        (Array(((0, 2),), (1, 2)), [1, 2]),
    ],
)
def test_arrays_of_other_shapes_differ(first: Any, second: Any) -> None:
    """Dimensions and lower bounds are recorded."""
    assert encode(form("int[]", first)) != encode(form("int[]", second))


def test_text_that_is_not_utf8_is_kept_apart_from_a_blob() -> None:
    """SQLite stores any bytes as text."""
    assert form("stored", b"a\xff".decode(errors="surrogateescape")) == ("text", b"a\xff")
    assert form("stored", b"a\xff") == b"a\xff"


# -- rows --------------------------------------------------------------------------------


def columns(types: list[str]) -> tuple[Column, ...]:
    """Give columns of some types."""
    return tuple(Column(id=i, name=f"c{i}", type=name, sql_type=name) for i, name in enumerate(types, start=1))


def descriptor(types: list[str], **changes: Any) -> Descriptor:
    """Give a descriptor with columns of some types."""
    given_: dict[str, Any] = {"table": 1, "role": "history", "schema": None, "name": "t", "columns": columns(types)}
    return Descriptor(**{**given_, **changes})


@given(st.lists(typed(), min_size=1), st.binary(min_size=16, max_size=16) | st.just(b""))
def test_a_row_is_read_back(values: list[Typed], salt: bytes) -> None:
    """Row and digest, whatever its values."""
    schema = descriptor([name for name, _value in values])
    forms = tuple(form(name, value) for name, value in values)
    data = RowEncoder(schema).encode(salt, forms)
    assert RowEncoder(schema).digest(salt, forms) == hashlib.sha256(data).digest()
    assert encode(decode(data)) == data
    row = decode_row(data, schema)
    assert (row.schema, row.salt, row.forms) == (schema.digest, salt, forms)


@given(st.lists(typed(), min_size=1), st.data())
def test_a_changed_row_has_another_digest(values: list[Typed], data: st.DataObject) -> None:
    """Another value, another salt, another type, another name: each changes the digest."""
    schema = descriptor([name for name, _value in values])
    forms = [form(name, value) for name, value in values]
    salt, other_salt = bytes(16), bytes(15) + b"\1"
    place = data.draw(st.integers(0, len(values) - 1))
    changed = form(values[place][0], data.draw(VALUES[values[place][0]] | st.none()))
    assume(encode(changed) != encode(forms[place]))
    digest = RowEncoder(schema).digest(salt, forms)
    assert RowEncoder(schema).digest(salt, [*forms[:place], changed, *forms[place + 1 :]]) != digest
    assert RowEncoder(schema).digest(other_salt, forms) != digest
    assert RowEncoder(descriptor([name for name, _value in values], name="u")).digest(salt, forms) != digest


@pytest.mark.parametrize(
    "changes",
    [
        {"columns": columns(["int", "text"])[:1]},
        {"columns": columns(["int", "text", "text"])},
        {"columns": columns(["int", "json"])},
        {"columns": (columns(["int"])[0], Column(id=2, name="renamed", type="text", sql_type="text"))},
        {"columns": (columns(["int"])[0], Column(id=3, name="c2", type="text", sql_type="text"))},
        {"columns": (columns(["int"])[0], Column(id=2, name="c2", type="text", sql_type="varchar"))},
        {"table": 2},
        {"role": "event"},
        {"schema": "s"},
        {"schema": ""},
        {"name": "T"},
        {"key": (1,)},
        {"key": (1, 2)},
        {"key": (2, 1)},
    ],
)
def test_another_schema_has_another_digest(changes: dict[str, Any]) -> None:
    """A column dropped, added, retyped, renamed, or taken for another one: each is another schema."""
    schema, other = descriptor(["int", "text"]), descriptor(["int", "text"], **changes)
    assert other.digest != schema.digest
    assert Descriptor.decode(other.encode()) == other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": ()}, "needs columns"),
        ({"columns": tuple(reversed(columns(["int", "text"])))}, "ascending id"),
        ({"columns": columns(["int"]) * 2}, "each id once"),
        (
            {"columns": (columns(["int"])[0], Column(id=2, name="c1", type="int", sql_type=""))},
            "two columns of one name",
        ),
        ({"columns": columns(["money"])}, "unknown type 'money'"),
        ({"table": 0}, "numbers go from 1"),
        ({"role": "table"}, "give one of transaction"),
        ({"key": (9,)}, "not of its columns"),
        ({"key": (1, 1)}, "each once"),
    ],
)
def test_a_descriptor_that_breaks_a_rule_is_refused(changes: dict[str, Any], message: str) -> None:
    """When it is made, and so when it is read."""
    with pytest.raises(Unencodable, match=message):
        descriptor(["int", "text"], **changes)


def test_a_row_has_as_many_values_as_columns() -> None:
    """And a salt of 16 bytes, or none."""
    encoder = RowEncoder(descriptor(["int", "text"]))
    with pytest.raises(Unencodable, match="has 2 values, and got 1"):
        encoder.digest(bytes(16), [1])
    with pytest.raises(Unencodable, match="a salt has 16 bytes"):
        encoder.digest(bytes(8), [1, "a"])


def test_forms_that_a_database_gives_make_the_same_row() -> None:
    """Microseconds, decimal text, the bytes of a float and of a UUID need no Python value between."""
    schema = descriptor(["instant", "decimal", "float64", "uuid"])
    values = (
        dt.datetime(2026, 3, 31, 23, 59, 59, 1, tzinfo=dt.UTC),
        Decimal("12.50"),
        0.1,
        uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
    )
    forms = [form(column.type, value) for column, value in zip(schema.columns, values, strict=True)]
    from_sql = [1775001599000001, "12.5", bytes.fromhex("3fb999999999999a"), values[3].bytes]
    assert RowEncoder(schema).digest(bytes(16), from_sql) == RowEncoder(schema).digest(bytes(16), forms)


def test_many_entries_are_made_fast() -> None:
    """Without a look at what is given, and to the same bytes."""
    schema, digest = SchemaDigest(bytes(32)), RowDigest(bytes(31) + b"\1")
    for row, transaction in ((1, 2), (-(2**63), None), (2**63 - 1, 2**63 - 1)):
        entry = RowEntry(table=7, row=row, transaction=transaction, schema=schema, digest=digest)
        assert row_entry(7, row, transaction, schema, digest) == entry.encode()
