"""The awaitable twins."""

from __future__ import annotations

import asyncio as aio
import datetime as dt
import inspect
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

import sa_audit
import sa_audit.asyncio as twins
from sa_audit import NotAudited, context, query

from .models import Account, Base

pytestmark = pytest.mark.both_captures


async def test_ask_and_restore(async_engine: AsyncEngine) -> None:
    """Each twin gives what its namesake gives, on an async driver."""
    async with async_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(async_engine, expire_on_commit=False) as session:
        account = Account(id=1, owner="ann")
        session.add(account)
        await session.commit()
        await aio.sleep(0.005)
        then = dt.datetime.now(dt.UTC)
        await aio.sleep(0.005)
        with context(actor="b"):
            account.owner = "bob"
            await session.commit()
        changes = await twins.history(session, Account, 1)
        assert [change.actor for change in changes] == [None, "b"]
        assert (await twins.blame(session, account))["owner"] == changes[1]
        assert await twins.diff(session, Account, 1, then, changes[1].recorded_at) == {"owner": ("ann", "bob")}
        assert list((await twins.transaction(session, changes[1].transaction.id)).changes) == changes[1:]
        assert (await twins.trail(session, base=Base, entity=Account)).entries == changes
        assert await twins.reconcile(session, Account) == []
        assert (await twins.restore(session, Account, 1, then)).owner == "ann"
        await session.commit()
        undone = (await twins.history(session, Account, 1))[-1].transaction.id
        assert await twins.revert(session, undone) == 1
        await session.commit()
        assert (await session.get_one(Account, 1)).owner == "bob"


@pytest.mark.only_on("sqlite")
async def test_an_async_session_is_told_the_way(async_engine: AsyncEngine) -> None:
    """The plain function names the module to use."""
    async with AsyncSession(async_engine) as session:
        plain: Any = session
        with pytest.raises(NotAudited, match=r"sa_audit\.asyncio"):
            query.history(plain, Account, 1)


@pytest.mark.parametrize("name", twins.__all__)
def test_signatures_agree(name: str) -> None:
    """A twin takes exactly the arguments of its namesake."""
    own, other = (inspect.signature(getattr(module, name)).parameters for module in (twins, sa_audit))
    assert [(p.name, p.kind, p.default) for p in own.values()] == [(p.name, p.kind, p.default) for p in other.values()]
