"""Signed notes: a text and signature lines below it.  C2SP signed-note, and ``docs/format/checkpoint.md``.

Parsing says nothing about who signed: :mod:`.policy` does.  Imports only the room's own parts and errors.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from ..errors import MalformedProof

MAX_NOTE: Final = 128 * 1024
"""The most bytes of a note."""
MAX_SIGNATURES: Final = 64
DASH: Final = "\u2014 "
KEY_ID_SIZE: Final = 4
_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f]")
_NUMBER: Final = re.compile("0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureLine:
    """One signature: the key's name, its id (4 bytes), and the signature in the form of the key's type."""

    name: str
    key_id: bytes
    signature: bytes

    def format(self) -> str:
        """Give the line, without newline."""
        return f"{DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode('ascii')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A signed note; ``text`` ends in a newline."""

    text: str
    signatures: tuple[SignatureLine, ...]

    def format(self) -> str:
        """Give the note as text.

        Raises:
            MalformedProof: if it would not be one.
        """
        formatted = self.text + "\n" + "".join(line.format() + "\n" for line in self.signatures)
        if parse_note(formatted) != self:
            raise MalformedProof(f"the text {self.text!r:.80} can't be that of a note")
        return formatted


def parse_note(source: str | bytes) -> Note:
    """Read a signed note.

    Args:
        source: the note, as text or as UTF-8.

    Raises:
        MalformedProof: if it is not one in its one form, longer than 128 KiB, or has more than 64 signatures.
    """
    whole = as_text(source, "note", MAX_NOTE)
    if _CONTROL.search(whole) is not None:
        raise MalformedProof("the note has a control character in it")
    text, separator, lines = whole.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise MalformedProof("the note has no signature lines behind a blank line, each ending in a newline")
    signatures = lines[:-1].split("\n")
    if len(signatures) > MAX_SIGNATURES:
        raise MalformedProof(f"the note has {len(signatures)} signature lines, and at most {MAX_SIGNATURES} are read")
    return Note(text=text + "\n", signatures=tuple(_line(line) for line in signatures))


def _line(line: str) -> SignatureLine:
    name, space, encoded = line.removeprefix(DASH).partition(" ")
    if not line.startswith(DASH) or not space:
        raise MalformedProof(f"the line {line!r:.80} of the note is not a signature line")
    require_key_name(name)
    raw = decode_base64(encoded, "signature line")
    if len(raw) <= KEY_ID_SIZE:
        raise MalformedProof(f"the line {line!r:.80} of the note has no signature")
    return SignatureLine(name=name, key_id=raw[:KEY_ID_SIZE], signature=raw[KEY_ID_SIZE:])


# -- parts that other texts share --------------------------------------------------------


def as_text(source: str | bytes, what: str, limit: int) -> str:
    """Give a text that is no longer than a limit in bytes and can be encoded in UTF-8.

    Raises:
        MalformedProof: if it is not.
    """
    if len(source) > limit:
        raise MalformedProof(f"the {what} is longer than {limit} bytes")
    try:
        encoded = source.encode() if isinstance(source, str) else bytes(source)
        text = encoded.decode()
    except UnicodeError as error:
        raise MalformedProof(f"the {what} is not UTF-8") from error
    if len(encoded) > limit:
        raise MalformedProof(f"the {what} is longer than {limit} bytes")
    return text


def require_key_name(name: str) -> None:
    """Refuse what can't be a key's name: empty, or with a space or plus in it.

    Raises:
        MalformedProof: naming it.
    """
    if not name or "+" in name or any(char.isspace() for char in name) or _CONTROL.search(name) is not None:
        raise MalformedProof(f"{name!r:.80} can't be a key's name: it must not be empty, nor hold a space or plus")
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise MalformedProof(f"{name!r:.80} can't be a key's name: it is not valid Unicode")


def decode_base64(text: str, what: str) -> bytes:
    """Decode base64 in its one form (RFC 4648, section 4, padded).

    Raises:
        MalformedProof: if it is not.
    """
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise MalformedProof(f"the {what} has {text!r:.80}, which is not base64") from error
    if base64.b64encode(raw).decode("ascii") != text:
        raise MalformedProof(f"the {what} has {text!r:.80}, which is not base64 in its one form")
    return raw


def decode_number(text: str, what: str) -> int:
    """Read a number from 0 to 2**63 - 1, without sign or leading zero.

    Raises:
        MalformedProof: if it is not one.
    """
    if _NUMBER.fullmatch(text) is None or int(text) >= 1 << 63:
        raise MalformedProof(f"the {what} is {text!r:.80}, which is not a number from 0 to 2**63 - 1 in its one form")
    return int(text)
