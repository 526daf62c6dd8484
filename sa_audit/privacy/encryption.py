"""Values encrypted under the key of a person: AES-256-GCM, bound to their place, with a tag to compare them by.

The form is ``aes-256-gcm:KEY:TAG:CIPHERTEXT``: the name of the key; 32 hexadecimal digits of an HMAC under a key that
is derived from it, which is the same for the same value of the same row; nonce and ciphertext in base64.  The
associated data bind table, column, row and key, so that a ciphertext that was moved does not open.
Imports model, proof, errors and cryptography only.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import os
import re
import threading
import time
from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any, Final

from ..errors import IntegrityFinding, UnusableKey
from ..model import AuditedTable, Encrypted, Erased, RecordedColumn
from .keys import KEY_SIZE, KeyProvider

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX: Final = "aes-256-gcm:"
LIFE: Final = 300.0
"""Seconds for which an unwrapped key is kept in memory, unless the provider has ``cache_seconds``."""
_NONCE: Final = 12
_FORM: Final = re.compile(rf"{PREFIX}([^:]{{32}}):([^:]{{32}}):([A-Za-z0-9+/]*={{0,2}})")


@dataclass(frozen=True)
class PersonKey:
    """A person's key: its name, and its 32 bytes, which no ``repr`` shows."""

    name: str
    secret: bytes = field(repr=False)

    @cached_property
    def cipher(self) -> AESGCM:
        """The cipher under the key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self.secret)

    @cached_property
    def tags(self) -> hmac.HMAC:
        """The HMAC of tags, to be copied, under a key that is derived from this one."""
        own = hmac.new(self.secret, b"sa_audit/tag-key/v1\x00", hashlib.sha256).digest()
        return hmac.new(own, None, hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: its table and column by their names, and what the database calls its row."""

    table: str
    column: str
    row: str

    def bound(self, key: str) -> bytes:
        """Give the associated data of a value."""
        return f"{_column(self.table, self.column)}{_quoted(self.row)}, {_quoted(key)}]".encode()


@functools.lru_cache(maxsize=4096)
def _column(table: str, column: str) -> str:
    """Give the JSON text of a list that begins with a column's names; what follows is written by hand, for speed."""
    return json.dumps(["sa_audit/value/v1", table, column])[:-1] + ", "


def new_key() -> PersonKey:
    """Make a key with a name of its own."""
    return PersonKey(os.urandom(16).hex(), os.urandom(KEY_SIZE))


def encrypted(key: PersonKey, place: Place, text: str, tagged: str | None = None) -> Encrypted:
    """Encrypt a value's text.

    Args:
        key: the person's.
        place: what it is bound to.
        text: the text.
        tagged: what the tag is of besides the text; None: the row of the place.
    """
    nonce = os.urandom(_NONCE)
    sealed = nonce + key.cipher.encrypt(nonce, text.encode("utf-8", "surrogatepass"), place.bound(key.name))
    tag = tag_of(key, place.row if tagged is None else tagged, text)
    return Encrypted(f"{PREFIX}{key.name}:{tag}:{b2a_base64(sealed, newline=False).decode()}")


def decrypted(key: PersonKey, places: Sequence[Place], value: str) -> str:
    """Decrypt a value.

    Args:
        key: the key that it names.
        places: where it may have been encrypted: the place where it stands, under its names of now and before.
        value: the text.

    Raises:
        IntegrityFinding: if it does not open: it was changed or moved, or the key is another one.
    """
    from cryptography.exceptions import InvalidTag

    sealed = _parts(value)[2]
    for place in places:
        try:
            plain = key.cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place.bound(key.name))
        except (InvalidTag, ValueError):
            continue
        return plain.decode("utf-8", "surrogatepass")
    raise IntegrityFinding(
        f"the encrypted value of {places[0].table}.{places[0].column} in row {places[0].row} does not open under its "
        f"key {key.name}: it was changed or moved here, or the key is another one of that name"
    )


def tag_of(key: PersonKey, row: str, text: str) -> str:
    """Give the tag of a value: 32 hexadecimal digits, the same for the same text in the same row."""
    made = key.tags.copy()
    made.update(f"[{_quoted(row)}, {_quoted(text)}]".encode())
    return made.hexdigest()[:32]


def key_name(value: str) -> str:
    """Give the name of the key that a value is encrypted under.

    Raises:
        IntegrityFinding: if it is not of the form.
    """
    return _parts(value)[0]


def is_encrypted(value: str) -> bool:
    """Tell whether a text is of the form."""
    return _FORM.fullmatch(value) is not None


def tag(value: str) -> str:
    """Give the tag of an encrypted value."""
    return _parts(value)[1]


def _parts(value: str) -> tuple[str, str, bytes]:
    found = _FORM.fullmatch(value)
    if found is None or len(found[3]) % 4:
        raise IntegrityFinding("an encrypted value is not of the form aes-256-gcm:KEY:TAG:CIPHERTEXT: it was changed")
    return found[1], found[2], base64.b64decode(found[3])


def places_of(audited: AuditedTable, column: RecordedColumn, row: str) -> list[Place]:
    """Give the places where a value of a column may have been encrypted: the present names, and the former ones."""
    tables = [audited.table.fullname]
    if audited.options.renamed_from:
        schema = f"{audited.table.schema}." if audited.table.schema else ""
        tables.append(f"{schema}{audited.options.renamed_from}")
    former = column.source.info.get("sa_audit.renamed_from")
    names = [column.name, *([former] if former else [])]
    rows = ["", row] if column.stored and row else [row]
    return [Place(table, name, each) for each in rows for table in tables for name in names]


def stored_place(audited: AuditedTable, column: RecordedColumn) -> Place:
    """Give where a value stands that is encrypted before its row is written: its key may not be known by then."""
    return Place(audited.table.fullname, column.name, "")


def stored_form(key: PersonKey, audited: AuditedTable, column: RecordedColumn, text: str) -> Encrypted:
    """Encrypt a value for the column itself, from which a trigger copies it."""
    return encrypted(key, stored_place(audited, column), text, tagged=json.dumps([audited.table.fullname, column.name]))


def event_place(entry: int, action: str, table: str | None, identity: str | None) -> Place:
    """Give where the data of an event stands: under its transaction's entry, its action, and the row that it names."""
    return Place("audit_event", "data", json.dumps([entry, action, table, identity]))


def context_place(name: str) -> Place:
    """Give where a value of a context stands: under its key.  Which row it was written to, the sealed log says."""
    return Place("audit_transaction", name, "")


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A person's key as the database has it, with the commitment that was recorded when it was made."""

    name: str
    subject: str
    wrapped: bytes = field(repr=False)
    wrapped_by: str
    commitment: str | None


class Secrets:
    """Keys of persons in memory, kept for a bounded time.

    Args:
        provider: unwraps them.
    """

    def __init__(self, provider: KeyProvider) -> None:
        self.provider = provider
        self.life = float(getattr(provider, "cache_seconds", LIFE))
        self._known: dict[str, tuple[PersonKey, float]] = {}
        self._loaded: dict[str, tuple[Wrapped | None, float]] = {}
        self._doubted: set[str] = set()
        self._lock = threading.Lock()

    def known(self, name: str) -> PersonKey | None:
        """Give a key that is still kept."""
        found = self._known.get(name)
        return found[0] if found is not None and found[1] > time.monotonic() else None

    def keep(self, key: PersonKey) -> PersonKey:
        """Keep a key, and forget those whose time is over."""
        now = time.monotonic()
        with self._lock:
            if len(self._known) % 256 == 0:
                self._known = {name: one for name, one in self._known.items() if one[1] > now}
            self._known[key.name] = (key, now + self.life)
        return key

    def forget(self, name: str) -> None:
        """Forget a key at once."""
        with self._lock:
            self._known.pop(name, None)
            self._doubted.add(name)

    def unwrapped(self, wrapped: Wrapped) -> PersonKey:
        """Unwrap a key, and see that it is the one that was made.

        Raises:
            UnusableKey: if it can't be unwrapped.
            IntegrityFinding: if it is not the one whose commitment was recorded.
        """
        name = wrapped.name
        known = self.known(name)
        if known is not None:
            return known
        secret = self.provider.unwrap(wrapped.wrapped, wrapped.wrapped_by, wrapping_context(name, wrapped.subject))
        if len(secret) != KEY_SIZE:
            raise UnusableKey(f"key {name} has {len(secret)} bytes: it is not one of {KEY_SIZE}")
        key = PersonKey(name, secret)
        if not hmac.compare_digest(commitment_of(key), wrapped.commitment or ""):
            raise IntegrityFinding(
                f"key {name} is not the one that was made under this name: it does not give the commitment that is "
                "recorded in audit_key"
            )
        return self.keep(key)

    def loaded(self, found: dict[str, Wrapped | None]) -> None:
        """Take wrapped keys as the database has them, None for those that were destroyed; they serve for as long."""
        now = time.monotonic()
        with self._lock:
            known = {name: one for name, one in self._loaded.items() if one[1] > now}
            self._loaded = {**known, **{name: (wrapped, now + self.life) for name, wrapped in found.items()}}
            self._doubted.difference_update(found)
            for name, wrapped in found.items():
                if wrapped is None:
                    self._known.pop(name, None)

    def is_fresh(self, name: str) -> bool:
        """Tell whether it was read lately that a key is there, or destroyed."""
        return name not in self._doubted and name in self._loaded and self._loaded[name][1] > time.monotonic()

    def shown(self, audited: AuditedTable, name: str, value: str) -> Any:
        """Give the text of a value that a column holds encrypted, or the marker ``Erased``."""
        key_of = key_name(value)
        # what RETURNING gives is read before anything can be loaded, and was encrypted here just before
        key = self.known(key_of) if key_of not in self._loaded else None
        key = key if key is not None else self.open(key_of)
        column = next(each for each in audited.columns if each.name == name)
        return Erased if key is None else decrypted(key, places_of(audited, column, ""), value)

    def is_loaded(self, name: str) -> bool:
        """Tell whether it is known of a key that it is there, or destroyed."""
        return name in self._loaded

    def open(self, name: str) -> PersonKey | None:
        """Give a key that was loaded, None if it was destroyed.

        Raises:
            IntegrityFinding: if it was neither there nor destroyed, or is another one than was made.
            UnusableKey: if it can't be unwrapped, or was loaded too long ago.
        """
        wrapped, until = self._loaded.get(name, (None, None))
        if until is None:
            raise IntegrityFinding(
                f"key {name}, under which a recorded value is encrypted, is neither there nor recorded as destroyed: "
                "somebody removed it"
            )
        if until < time.monotonic():
            raise UnusableKey(
                f"key {name} was read from the database more than {self.life:g} seconds ago, and may be destroyed "
                "since: open the past anew"
            )
        return None if wrapped is None else self.unwrapped(wrapped)


def commitment_of(key: PersonKey) -> str:
    """Give what is recorded of a key when it is made: docs/format/entries.md, "Person key", in hexadecimal digits."""
    from ..proof.entries import key_commitment  # late: proof needs more than recording does

    return key_commitment(key.secret, key.name).hex()


def wrapping_context(name: str, subject: str) -> dict[str, str]:
    """Give what a wrapped key is bound to: its name and its person, of whom it says nothing."""
    return {"key": name, "subject": hashlib.sha256(f"{name}\0{subject}".encode()).hexdigest()}
