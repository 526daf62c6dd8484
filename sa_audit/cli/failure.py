"""Why a command ends without a result, and its exit code.  Imports only errors and SQLAlchemy's."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..errors import (
    AnchorUnavailable,
    AuditError,
    CaptureMissing,
    Conflict,
    IntegrityFinding,
    NotSealed,
    SealerBusy,
    SealRefused,
    SealTimeout,
    TrailNotEmpty,
    UnauditedWrite,
)

FINDINGS: Final = 1
WRONG_USAGE: Final = 2
CANT_RUN: Final = 3


class WrongUsage(AuditError):
    """What was asked for on the command line can't be meant."""


class CantRun(AuditError):
    """The command is right, and can't be run here."""


_CANT_RUN: Final = (
    *(CantRun, NotSealed, AnchorUnavailable, CaptureMissing, Conflict, IntegrityFinding, TrailNotEmpty, UnauditedWrite),
    *(SealRefused, SealTimeout, SealerBusy),
)


def exit_code(error: Exception) -> int:
    """Give the exit code of an error: 2 if the user can ask differently, 3 if the command can't run here."""
    if isinstance(error, _CANT_RUN):
        return CANT_RUN
    return WRONG_USAGE if isinstance(error, AuditError) else CANT_RUN


def sentence(error: Exception) -> str:
    """Give the one sentence about an error that the user reads; a database's own words, without the statement."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return f"the database said: {str(error.orig).strip() or type(error.orig).__name__}"
    if isinstance(error, SQLAlchemyError):
        return str(error).split("(Background on", 1)[0].strip()
    return str(error)
