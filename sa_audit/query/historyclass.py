"""The mapped class of a history table, for ``select()``.

Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, orm

from ..errors import ConfigurationError, NotAudited, UnauditedWrite
from ..model import audited_of
from .entity import mapper_of, subject_of

OWN = ("audit_id", "audit_tx", "audit_op", "audit_at", "audit_before")
_MEMO = "history_class"


def history_class(entity: Any) -> type[Any]:
    """Give the mapped class of a model's history table, to be used in ``select()``; always the same for a model.

    It has the model's own attributes, as far as their values are recorded, and ``audit_id``, ``audit_tx``,
    ``audit_op``, ``audit_at`` and ``audit_before`` (the raw document; :func:`history` gives it decoded).  With joined
    inheritance it stands for the class's own table only, key included: the parent's history is the parent's
    history class.  With single-table inheritance it holds the rows of all classes in the table.
    It is for reading: flushing an object of it is refused.

    Args:
        entity: a mapped class, its mapper, or an audited table (then the attributes are the columns).

    Raises:
        NotAudited: if nothing of the kind is recorded.
        ConfigurationError: if an attribute of the model is called as one of the history's own.

    Example::

        Past = history_class(Account)
        session.scalars(select(Past).where(Past.owner == "ann").order_by(Past.audit_id)).all()
    """
    subject = subject_of(entity)
    table = entity if isinstance(entity, sa.Table) else mapper_of(entity).local_table
    audited = audited_of(table)
    if audited is None:
        raise NotAudited(f"{subject.name} has no history table of its own")
    memo = audited.memo.setdefault(_MEMO, {})
    known: type[Any] | None = memo.get(subject.mapper)
    if known is None:
        names = subject.names(subject.mapper)
        attributes = {names[column.source]: column.recorded for column in audited.recorded}
        for name in OWN:
            if name in attributes:
                raise ConfigurationError(
                    f"the attribute {name!r} of {subject.name} is called as the history's own, so a class can't have "
                    f"both: select from the table {audited.history.fullname}, or rename the attribute"
                )
        known = memo[subject.mapper] = _make(subject.mapper, audited.history, attributes)
        audited.trail.used = True
    return known


def _make(mapper: orm.Mapper[Any] | None, history: sa.Table, attributes: dict[str, Any]) -> type[Any]:
    base = mapper.class_.__name__ if mapper is not None else "".join(map(str.title, history.name.split("_")))
    module = mapper.class_.__module__ if mapper is not None else __name__
    class_ = type(
        f"{base}History" if mapper is not None else base,
        (),
        {"__doc__": f"A history row of {base}.", "__module__": module},
    )
    properties = {**{name: history.c[name] for name in OWN}, **attributes}
    registry = orm.registry(metadata=history.metadata)
    mapped: orm.Mapper[Any] = registry.map_imperatively(
        class_,
        history,
        properties=properties,
        include_properties=[column.key for column in properties.values()],
        primary_key=[history.c.audit_id],
    )
    for name in ("before_insert", "before_update", "before_delete"):
        event.listen(mapped, name, _refuse)
    return class_


def _refuse(mapper: orm.Mapper[Any], connection: Any, target: Any) -> None:
    raise UnauditedWrite(
        f"{mapper.class_.__name__} is history, which nobody writes but the recording itself: change the model's rows"
    )
