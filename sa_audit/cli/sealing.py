"""``seal`` and ``rebase``: once, or as a service that a signal stops between two sealings.

Imports seal, anchors, proof, errors and typer.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
import typer
from rich.console import Group, RenderableType
from sqlalchemy.exc import DBAPIError

from ..anchors import open as open_anchor
from ..catalog import Unsealed
from ..errors import AnchorUnavailable, SealerBusy, UnusableKey
from ..proof import Checkpoint, Signer
from ..seal.sealer import Sealer
from .failure import WrongUsage, sentence
from .keygen import PASSWORD
from .results import plain

_TIME: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


@dataclass(frozen=True, slots=True)
class SealResult:
    """One sealing.  JSON: ``{"size", "root", "sealed": bool, "unsealed": {"rows", "since", "held_by"}}``."""

    checkpoint: Checkpoint | None
    unsealed: Unsealed

    def to_json(self) -> Any:
        """Give it as JSON values."""
        since = self.unsealed.since
        return {
            "sealed": self.checkpoint is not None,
            "size": None if self.checkpoint is None else self.checkpoint.size,
            "root": None if self.checkpoint is None else self.checkpoint.root.hex(),
            "unsealed": {
                "rows": self.unsealed.rows,
                "since": None if since is None else since.isoformat(),
                "held_by": self.unsealed.held_by,
            },
        }

    def render(self) -> RenderableType:
        """Give it for people."""
        checkpoint = self.checkpoint
        done = "nothing to seal" if checkpoint is None else f"sealed: {checkpoint.size} leaves, {checkpoint.root.hex()}"
        return Group(plain(done), plain(self._rest()))

    def _rest(self) -> str:
        rest = self.unsealed
        if not rest.rows:
            return "no committed row is unsealed"
        age = rest.age(dt.datetime.now(dt.UTC))
        held = f"; {rest.held_by} is still writing" if rest.held_by else ""
        return f"{rest.rows} committed rows are unsealed, the oldest for {age.total_seconds():.0f} s{held}"


@dataclass(frozen=True, slots=True)
class RebaseResult:
    """A rebase, or a revocation.  JSON: ``{"state": path}``."""

    state: Path

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return {"state": str(self.state)}

    def render(self) -> RenderableType:
        """Give it for people."""
        return plain(f"{self.state}: the next sealing says so in the log, and goes on")


def seconds(text: str, option: str = "--every") -> float:
    """Read a time such as ``2s``, ``500ms`` or ``5m``.

    Raises:
        WrongUsage: if it is none, or nothing at all.
    """
    match = _TIME.fullmatch(text)
    found = 0.0 if match is None else float(match[1]) * _UNITS[match[2]]
    if found <= 0:
        raise WrongUsage(f"{option} {text!r}: give a time such as 2s, 500ms or 5m")
    return found


def moment_of(option: str, text: str) -> dt.datetime:
    """Read the moment that an option gives, with its offset, in ISO 8601.

    Raises:
        WrongUsage: if it is none, or has no offset.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise WrongUsage(f"{option} {text!r}: give a moment such as 2026-03-31T23:59:59Z") from error
    if moment.tzinfo is None:
        raise WrongUsage(f"{option} {text!r}: give its offset as well, such as 2026-03-31T23:59:59Z")
    return moment


def load_signers(paths: Sequence[Path]) -> list[Signer]:
    """Read the keys, with the password of the environment or of who sits at the terminal.

    Raises:
        UnusableKey: if one can't be read or opened.
    """
    return [_load(path) for path in paths]


def _load(path: Path) -> Signer:
    given = os.environ.get(PASSWORD)
    try:
        return Signer.load(path, given)
    except UnusableKey:
        if given or not sys.stdin.isatty():
            raise
    password: str = typer.prompt(f"Password of {path}", hide_input=True)
    return Signer.load(path, password)


def make_sealer(
    engine: sa.Engine, signers: Sequence[Signer], state: Path, anchors: Sequence[str], metadata: sa.MetaData
) -> Sealer:
    """Make the sealer that the options ask for."""
    return Sealer(engine, list(signers), state=state, anchors=[open_anchor(uri) for uri in anchors], metadata=metadata)


def seal_once(sealer: Sealer) -> SealResult:
    """Seal, and look at what is left."""
    return SealResult(sealer.seal(), sealer.window())


def seal_every(sealer: Sealer, pause: float, show: Callable[[SealResult], None]) -> None:
    """Seal again and again until SIGTERM or SIGINT comes, which never interrupts a sealing.

    What may be over the next time is said and tried again: an anchor or database that can't be reached, another sealer.

    Args:
        sealer: the sealer.
        pause: seconds between two sealings.
        show: prints a result; called where something was sealed.
    """
    with _stopped_by_signals() as stop:
        while not stop.is_set():
            try:
                result = seal_once(sealer)
                if result.checkpoint is not None:
                    show(result)
            except (AnchorUnavailable, SealerBusy, DBAPIError) as error:
                typer.echo(f"sa-audit: {sentence(error)}", err=True)
            stop.wait(pause)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set while the block runs."""
    stop = threading.Event()
    former = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
