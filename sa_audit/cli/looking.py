"""Looks into the trail from the command line, recorded before anything is shown, with ``configure(looks=True)``.

Imports the room's own parts, capture, model and SQLAlchemy.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import orm

from ..capture.context import context, current_context
from ..capture.events import record_own
from ..model import Trail

LOOKED: Final = "sa_audit.looked"
EXPORTED: Final = "sa_audit.exported"


def looked(
    engine: sa.Engine, trail: Trail, command: str, question: Mapping[str, Any], rows: int | None, action: str = LOOKED
) -> None:
    """Record who asked what, in a transaction of its own, if the models are configured so.

    Args:
        engine: to the database.
        trail: the trail.
        command: the command's name.
        question: its arguments, without those that are None.
        rows: how many rows, or entries, it is about to show; None where that is not known.
        action: of the event.

    Raises:
        AuditError: if it can't be recorded; nothing is shown then.
    """
    if not trail.configuration.looks:
        return
    said = {name: str(value) for name, value in question.items() if value is not None}
    data = {"command": command, "question": said, "rows": rows, "os_user": _user()}
    given = current_context()
    audited = next(iter(trail.audited.values()))
    with context(given, **({"actor": f"os:{_user()}"} if given.actor is None else {})), orm.Session(engine) as session:
        record_own(session.connection(bind_arguments={"clause": audited.table}), audited, action, data)
        session.commit()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a process without a name, such as one in a container
        return "unknown"
