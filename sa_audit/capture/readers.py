"""Whose eyes a session's objects are for: when its actor changes, the objects whose reads are recorded are expired.

Then they are loaded, and recorded, again.  A session hands out loaded objects from its identity map, without a
statement; so the map of a session that is used while reads are recorded looks at the actor first.
Imports model, and of capture the context.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.orm import InstanceState, ORMExecuteState, Session
from sqlalchemy.orm.identity import IdentityMap

from ..model.history import audited_of, reading
from .context import Context, current_context

READER: Final = "sa_audit.reader"


class Watched(IdentityMap):
    """What makes an identity map have a look at the actor before it gives an object.

    A key that it does not have needs no look: there is nothing to give, and a query that loads many asks for each.
    """

    watched: weakref.ref[Session]
    seen: Context | None = None
    """The context that was looked at last, and whose actor is the session's reader."""

    def get(self, key: Any, default: Any = None) -> Any:
        """Give the object of a key."""
        if key not in self._dict:
            return default
        self._look()
        return super().get(key, default)

    def fast_get_state(self, key: Any) -> Any:
        """Give the state of a key."""
        if key not in self._dict:
            return None
        self._look()
        return super().fast_get_state(key)

    def _look(self) -> None:
        context = current_context()
        if context is self.seen:
            return
        session = self.watched()
        if session is not None and session.info.get(READER) != context.actor:
            follow_actor(session)
        self.seen = context


def follow_actor(session: Session) -> None:
    """Expire what the session's last actor has read, if there is another one now."""
    actor, known = current_context().actor, READER in session.info
    former = session.info.get(READER)
    session.info[READER] = actor
    if isinstance(session.identity_map, Watched):
        session.identity_map.seen = None
    if known and former != actor:
        for state in session.identity_map.all_states():
            if state.key is not None and _is_read(state):
                _expire(session, state)


def _is_read(state: InstanceState[Any]) -> bool:
    audited = [audited_of(table) for table in state.mapper.tables]
    return any(entry is not None and entry.options.reads for entry in audited)


def _expire(session: Session, state: InstanceState[Any]) -> None:
    """Expire an object but for what was set on it and not yet flushed."""
    instance = state.obj()
    if instance is None:
        return
    changed = set(state.committed_state)
    names = [prop.key for prop in state.mapper.attrs if prop.key in state.dict and prop.key not in changed]
    if not changed:
        session.expire(instance)
    elif names:
        session.expire(instance, names)


@functools.cache
def _watched(class_: Any) -> Any:
    """Give the watched class of a class of identity maps, whose name differs between SQLAlchemy's versions."""
    return type(f"Watched{class_.__name__}", (Watched, class_), {})


def _watch(session: Session) -> None:
    known: Any = session.identity_map
    if not isinstance(known, Watched):
        known.__class__ = _watched(known.__class__)
        known.watched = weakref.ref(session)
    if READER not in session.info or session.info[READER] != current_context().actor:
        follow_actor(session)


@event.listens_for(Session, "do_orm_execute")
def _do_orm_execute(state: ORMExecuteState) -> None:
    if reading:
        _watch(state.session)


@event.listens_for(Session, "after_flush")
def _after_flush(session: Session, flush_context: Any) -> None:
    if reading:
        _watch(session)
