"""The canonical encoding of a row, and its digest: ``docs/format/canonical.md``, version 1.

Imports only the room's own parts and errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..errors import MalformedProof, Unencodable
from .cbor import ARRAY, BYTES, Item, decode, encode, encode_fast, head
from .forms import check_form
from .schema import Descriptor
from .types import RowDigest, SchemaDigest

ROW_LABEL: Final = "sa_audit/row/v1"
SALT_SIZE: Final = 16
"""The bytes of ``audit_salt``."""

_sha256 = hashlib.sha256


class RowEncoder:
    """Encodes rows of one descriptor, fast: what all of them have in common is encoded once."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self._width = len(descriptor.columns)
        self._prefix = head(ARRAY, 4) + encode(ROW_LABEL) + encode(bytes(descriptor.digest))
        self._salted = self._prefix + head(BYTES, SALT_SIZE)

    def encode(self, salt: bytes, forms: Sequence[Item]) -> bytes:
        """Give the row as bytes.

        Args:
            salt: ``audit_salt``, 16 bytes, or empty where the table has none.
            forms: the forms of the values, in the order of the descriptor's columns; taken as they are.

        Raises:
            Unencodable: if there are more or fewer of them than columns, or the salt has another length.
        """
        return self._prefix + self._rest(salt, forms)

    def digest(self, salt: bytes, forms: Sequence[Item]) -> RowDigest:
        """Give the row digest, 32 bytes; see :meth:`encode`."""
        if len(salt) == SALT_SIZE and len(forms) == self._width:
            return _sha256(self._salted + salt + encode_fast(forms)).digest()  # type: ignore[return-value]  # NewType
        return RowDigest(_sha256(self.encode(salt, forms)).digest())

    def _rest(self, salt: bytes, forms: Sequence[Item]) -> bytes:
        if len(forms) != self._width:
            raise Unencodable(f"a row of {self.descriptor.name} has {self._width} values, and got {len(forms)}")
        if len(salt) not in (0, SALT_SIZE):
            raise Unencodable(f"a salt has 16 bytes, or none, and this one {len(salt)}: {salt!r:.80}")
        return head(BYTES, len(salt)) + salt + encode_fast(forms)


class Row(NamedTuple):
    """A decoded row: the digest of its descriptor, its salt, and the forms of its values."""

    schema: SchemaDigest
    salt: bytes
    forms: tuple[Item, ...]


def decode_row(data: bytes, descriptor: Descriptor) -> Row:
    """Read a row, and check that it is one of a descriptor.

    Raises:
        MalformedProof: if it is not an encoded row, or not one of this descriptor.
    """
    match decode(data, what="row"):
        case (label, bytes(schema), bytes(salt), tuple(forms)) if label == ROW_LABEL:
            pass
        case _:
            raise MalformedProof(f"the row is not of the form {ROW_LABEL!r}")
    if schema != descriptor.digest:
        raise MalformedProof(
            f"the row belongs to the schema {schema.hex()}, and not to that of {descriptor.name}, "
            f"{descriptor.digest.hex()}"
        )
    if len(salt) not in (0, 16) or len(forms) != len(descriptor.columns):
        raise MalformedProof(
            f"the row has {len(forms)} values and a salt of {len(salt)} bytes: "
            f"expected {len(descriptor.columns)} values, and 16 bytes or none"
        )
    for column, item in zip(descriptor.columns, forms, strict=True):
        try:
            check_form(column.type, item)
        except MalformedProof as error:
            raise MalformedProof(f"column {column.name!r} of the row: {error}") from error
    return Row(SchemaDigest(schema), salt, forms)
