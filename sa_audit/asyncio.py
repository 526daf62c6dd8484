"""Awaitable twins of the functions that ask, restore and record, for an ``AsyncSession``.

Each takes the arguments of its namesake in :mod:`sa_audit` and gives the same; what iterates there is a list here.
Imports query, capture and SQLAlchemy only.
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from . import capture, query
from .capture.erasure import Erasure
from .capture.erasure import erase as destroy
from .query import Access, Change, Discrepancy, Operation, Page, Reader, TransactionRecord


async def history(
    session: AsyncSession,
    entity: Any,
    key: Any = None,
    *,
    since: Any = None,
    until: Any = None,
    attribute: str | None = None,
) -> list[Change]:
    """Give the changes of one row, oldest first; see :func:`sa_audit.history`."""
    return await session.run_sync(
        lambda sync: query.history(sync, entity, key, since=since, until=until, attribute=attribute)
    )


async def blame(session: AsyncSession, entity: Any, key: Any = None) -> dict[str, Change]:
    """Give the change that gave each attribute of a row its present value; see :func:`sa_audit.blame`."""
    return await session.run_sync(lambda sync: query.blame(sync, entity, key))


async def diff(session: AsyncSession, entity: Any, key: Any, earlier: Any, later: Any) -> dict[str, tuple[Any, Any]]:
    """Give what differs in a row between two moments; see :func:`sa_audit.diff`."""
    return await session.run_sync(lambda sync: query.diff(sync, entity, key, earlier, later))


async def transaction(session: AsyncSession, transaction_id: int, *, base: Any = None) -> TransactionRecord:
    """Give everything that one database transaction did; see :func:`sa_audit.transaction`."""
    return await session.run_sync(lambda sync: query.transaction(sync, transaction_id, base=base))


async def trail(
    session: AsyncSession,
    *,
    actor: str | None = None,
    entity: Any = None,
    identity: Any = None,
    operation: Operation | Literal["event", "read"] | None = None,
    action: str | None = None,
    since: Any = None,
    until: Any = None,
    limit: int = 100,
    after: str | None = None,
    base: Any = None,
) -> Page:
    """Give a page of the trail; see :func:`sa_audit.trail`."""
    return await session.run_sync(
        lambda sync: query.trail(
            sync,
            actor=actor,
            entity=entity,
            identity=identity,
            operation=operation,
            action=action,
            since=since,
            until=until,
            limit=limit,
            after=after,
            base=base,
        )
    )


async def reads(
    session: AsyncSession, entity: Any, key: Any = None, *, since: Any = None, until: Any = None
) -> list[Access]:
    """Give the statements that showed a row; see :func:`sa_audit.reads`."""
    return await session.run_sync(lambda sync: query.reads(sync, entity, key, since=since, until=until))


async def readers(
    session: AsyncSession,
    entity: Any,
    *,
    since: Any = None,
    until: Any = None,
    at_least: int = 1,
    per: Literal["day"] | None = None,
) -> list[Reader]:
    """Give who read how many rows of an entity; see :func:`sa_audit.readers`."""
    return await session.run_sync(
        lambda sync: query.readers(sync, entity, since=since, until=until, at_least=at_least, per=per)
    )


async def record(
    session: AsyncSession,
    action: str,
    target: Any = None,
    data: Any = None,
    *,
    durable: bool = False,
    subject: Any = None,
    base: Any = None,
) -> None:
    """Record a domain event; see :func:`sa_audit.record`."""
    await session.run_sync(
        lambda sync: capture.record(sync, action, target, data, durable=durable, subject=subject, base=base)
    )


async def reconcile(session: AsyncSession, entity: Any) -> list[Discrepancy]:
    """Give all rows whose present state differs from the last recorded one; see :func:`sa_audit.reconcile`."""
    return await session.run_sync(lambda sync: list(query.reconcile(sync, entity)))


async def erase(session: AsyncSession, subject: Any, reason: str | None = None, *, base: Any = None) -> Erasure:
    """Destroy a person's key; see :func:`sa_audit.erase`."""
    return await session.run_sync(lambda sync: destroy(sync, subject, reason, base=base))


async def restore(session: AsyncSession, entity: Any, key: Any, when: Any) -> Any:
    """Bring a row back to its state at a moment; see :func:`sa_audit.restore`."""
    return await session.run_sync(lambda sync: query.restore(sync, entity, key, when))


async def revert(session: AsyncSession, transaction_id: int, *, base: Any = None) -> int:
    """Undo what one row of ``audit_transaction`` recorded; see :func:`sa_audit.revert`.

    The session's objects are expired: refresh those that are used further.
    """
    return await session.run_sync(lambda sync: query.revert(sync, transaction_id, base=base))


__all__ = [
    "blame",
    "diff",
    "erase",
    "history",
    "readers",
    "reads",
    "reconcile",
    "record",
    "restore",
    "revert",
    "trail",
    "transaction",
]
