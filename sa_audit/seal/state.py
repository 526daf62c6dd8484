"""The sealer's own memory: a file outside of the database, flushed to disk at each step.

It is what a tampered database can't change: the log's size, root and frontier, and how far the rows are sealed.
Imports proof and errors.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ..errors import SealerBusy, SealRefused
from ..proof.entries import Horizon
from ..proof.merkle import Frontier
from ..proof.schema import Descriptor
from ..proof.types import Digest
from .ranges import Range

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows, where the database's own lock has to do
    fcntl = None  # type: ignore[assignment]  # the absence of a module has no type

FORMAT: Final = "sa_audit/sealer-state/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTable:
    """A table in the log: its number, its last descriptor (None while no row of it is sealed), and what is sealed.

    ``last`` is the greatest id of a sealed row.  ``ranges`` are all ids of sealed rows, where the rows carry no
    transaction id; ``floor`` is the greatest id that stood there when transaction ids began anew by a rebase.
    """

    number: int
    descriptor: Descriptor | None = None
    last: int | None = None
    ranges: tuple[Range, ...] = ()
    floor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorState:
    """What an anchor took last: the size of the checkpoint, and the digest of its token."""

    size: int
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where the sealer stands.

    Args:
        origin: the log's name.
        system: the database by its own word, see :class:`sa_audit.catalog.horizon.Identity`.
        timeline: of the database, where it has one.
        frontier: of the tree.
        blocks: how many there are.
        last_block: the digest of the last one's entries.
        incarnation: the number of the last incarnation entry.
        horizon: up to where every row is sealed.
        tables: by their qualified names.
        keys: verifier keys that sign now.
        former: verifier keys that were retired or revoked, and don't come back.
        anchors: by URI.
        token: the digest of the last token.
        catalog: the fingerprint of the catalog that the log says last, or None if it says none.
        queue: encoded entries for the next block.
    """

    origin: str
    system: str
    timeline: int | None = None
    frontier: Frontier = field(default_factory=Frontier)
    blocks: int = 0
    last_block: Digest | None = None
    incarnation: int = 0
    horizon: Horizon | None = None
    tables: dict[str, KnownTable] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    anchors: dict[str, AnchorState] = field(default_factory=dict)
    token: Digest | None = None
    catalog: Digest | None = None
    queue: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self.frontier.size

    @property
    def root(self) -> Digest:
        """The root of the tree."""
        return self.frontier.root()

    def next_number(self) -> int:
        """Give the number of the next table that the log has not seen."""
        return max((known.number for known in self.tables.values()), default=0) + 1

    def anchored(self, uri: str, size: int, digest: Digest) -> State:
        """Give the state after an anchor took a checkpoint."""
        anchors = {**self.anchors, uri: AnchorState(size=size, digest=digest)}
        return replace(self, anchors=anchors, token=digest)


class StateFile:
    """The file that holds a state, and the one that may follow it.

    Args:
        path: the file; it is made by the first sealing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other sealers on this host away from the file.

        Raises:
            SealerBusy: if one has it.
        """
        if fcntl is None:
            yield
            return
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SealerBusy(
                    f"another sealer is at work with the state file {self.path}: let one seal, and stop the other"
                ) from error
            yield
        finally:
            os.close(descriptor)

    def read(self) -> tuple[State, State | None] | None:
        """Give the state and the pending one, or None if there is no file.

        Raises:
            SealRefused: if the file is not a sealer's state, or can't be read.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            pending = content["pending"]
            return _state(content["state"]), None if pending is None else _state(pending)
        except Exception as error:  # whatever is wrong in it, it is no state
            raise SealRefused(
                f"{self.path} is not a sealer's state ({error}): put its last copy back, or begin a new one with rebase"
            ) from error

    def write(self, state: State, pending: State | None = None) -> None:
        """Replace the file's content, and return once it is on disk.

        Raises:
            SealRefused: if it can't be written.
        """
        content = {
            "format": FORMAT,
            "state": _content(state),
            "pending": None if pending is None else _content(pending),
        }
        new = self.path.with_name(self.path.name + ".new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, ensure_ascii=False, indent=1)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
            _flush_directory(self.path.parent)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> SealRefused:
        return SealRefused(f"the sealer's state file {self.path} can't be used: {error}")


def _flush_directory(path: Path) -> None:
    if fcntl is None:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- as JSON -------------------------------------------------------------------------------


def _content(state: State) -> dict[str, Any]:
    return {
        "origin": state.origin,
        "system": state.system,
        "timeline": state.timeline,
        "size": state.size,
        "root": state.root.hex(),
        "frontier": [node.hex() for node in state.frontier.hashes],
        "blocks": state.blocks,
        "last_block": _hex(state.last_block),
        "incarnation": state.incarnation,
        "horizon": state.horizon,
        "tables": {name: _table_content(known) for name, known in state.tables.items()},
        "keys": list(state.keys),
        "former": list(state.former),
        "anchors": {uri: {"size": at.size, "digest": at.digest.hex()} for uri, at in state.anchors.items()},
        "token": _hex(state.token),
        "catalog": _hex(state.catalog),
        "queue": [entry.hex() for entry in state.queue],
    }


def _table_content(known: KnownTable) -> dict[str, Any]:
    return {
        "number": known.number,
        "descriptor": None if known.descriptor is None else known.descriptor.encode().hex(),
        "last": known.last,
        "ranges": [list(pair) for pair in known.ranges],
        "floor": known.floor,
    }


def _state(content: dict[str, Any]) -> State:
    frontier = Frontier(content["size"], tuple(Digest(bytes.fromhex(node)) for node in content["frontier"]))
    if frontier.root().hex() != content["root"]:
        raise ValueError("its frontier does not give its root")
    anchors = {
        uri: AnchorState(size=at["size"], digest=Digest(bytes.fromhex(at["digest"])))
        for uri, at in content["anchors"].items()
    }
    return State(
        origin=content["origin"],
        system=content["system"],
        timeline=content["timeline"],
        frontier=frontier,
        blocks=content["blocks"],
        last_block=_digest(content["last_block"]),
        incarnation=content["incarnation"],
        horizon=_horizon(content["horizon"]),
        tables={name: _known(table) for name, table in content["tables"].items()},
        keys=tuple(content["keys"]),
        former=tuple(content.get("former", ())),  # not there before keys could be revoked
        anchors=anchors,
        token=_digest(content["token"]),
        catalog=_digest(content.get("catalog")),  # not there before catalogs were sealed
        queue=tuple(bytes.fromhex(entry) for entry in content["queue"]),
    )


def _known(content: dict[str, Any]) -> KnownTable:
    encoded = content["descriptor"]
    return KnownTable(
        number=content["number"],
        descriptor=None if encoded is None else Descriptor.decode(bytes.fromhex(encoded)),
        last=content["last"],
        ranges=tuple((first, last) for first, last in content["ranges"]),
        floor=content["floor"],
    )


def _horizon(content: Any) -> Horizon | None:
    match content:
        case None:
            return None
        case ["snapshot", str(text)]:
            return ("snapshot", text)
        case ["epoch", int(epoch)]:
            return ("epoch", epoch)
        case ["rowid", list(rows)]:
            return ("rowid", tuple((table, row) for table, row in rows))
        case _:
            raise ValueError(f"it has the horizon {content!r:.80}")


def _hex(digest: Digest | None) -> str | None:
    return None if digest is None else digest.hex()


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest(bytes.fromhex(text))
