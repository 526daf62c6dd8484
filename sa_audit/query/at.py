"""What a moment can see of a subject's history.

Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from ..model import AuditedTable
from .entity import Subject
from .past import Past
from .past_database import past_database
from .past_state import seen_at
from .rows import Source
from .sealed import moment_of

Visible = Callable[[AuditedTable], sa.ColumnElement[bool]]


def visibility(source: Source, subject: Subject, when: Any) -> Visible:
    """Give the condition for the rows of a table's history that a moment can see.

    Args:
        source: where they are read.
        subject: whose history it is.
        when: the moment, as :func:`sa_audit.as_of` takes it.

    Raises:
        InvalidMoment: if it can't be read, lies in the future, or before the subject's table was tracked.
        CaptureMissing: if the database has no trail.
    """
    moment = moment_of(source.connection, when)
    database = past_database(source.connection.dialect)
    database.accept(moment)
    database.check_future(source.connection, moment)
    Past(moment, ()).require_tracked(source.connection, database, [part.audited for part in subject.parts])
    return lambda audited: seen_at(audited, moment)
