"""``sa-audit erase`` and ``rewrap``: the keys of persons.  Imports the room's own parts, capture and SQLAlchemy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from sqlalchemy import orm

from ..capture.context import context
from ..capture.erasure import Erasure, rewrap
from ..capture.erasure import erase as destroy
from .app import Json, ModelsOption, Url, _opened, _print, app
from .encoding import to_json
from .results import plain


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """What was destroyed, and what is left.  JSON: ``{"subject", "keys", "effective_at", "remains"}``."""

    erasure: Erasure

    def to_json(self) -> Any:
        """Give it as JSON values."""
        done = self.erasure
        return {
            "subject": done.subject,
            "keys": list(done.keys),
            "effective_at": to_json(done.effective_at),
            "remains": list(done.remains),
        }

    def render(self) -> RenderableType:
        """Give it for people."""
        done = self.erasure
        lines = [
            f"the key of {done.subject} is destroyed; no process holds it after {done.effective_at.isoformat()}",
            "what remains:",
            *(f"  - {sentence}" for sentence in done.remains),
        ]
        return Group(*map(plain, lines))


@dataclass(frozen=True, slots=True)
class RewrapResult:
    """How many keys were wrapped anew.  JSON: ``{"rewrapped"}``."""

    rewrapped: int

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return {"rewrapped": self.rewrapped}

    def render(self) -> RenderableType:
        """Give it for people."""
        return plain(f"{self.rewrapped} keys wrapped anew")


@app.command("erase")
def erase(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="The person, as the subject column has it.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why: recorded.")],
    actor: Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Who erases: recorded.")] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Destroy a person's key, so that nobody can read what was encrypted under it; say what remains."""
    said = {"reason": reason, **({"actor": actor} if actor is not None else {})}
    with context(**said), _opened(url, models) as place, orm.Session(place.engine) as session:
        done = destroy(session, subject, reason, base=place.models.trail.metadata)
        session.commit()
    _print(ErasureResult(done), json)


@app.command("rewrap")
def rewrap_keys(url: Url = None, models: ModelsOption = None, json: Json = False) -> None:
    """Wrap the keys of persons anew by the newest key-encryption key, so that older ones can go."""
    with _opened(url, models) as place, orm.Session(place.engine) as session:
        done = rewrap(session, base=place.models.trail.metadata)
        session.commit()
    _print(RewrapResult(done), json)
