"""How a model is declared audited: the mixin, ``track`` and ``configure``, and the listeners that follow the models.

The listeners stand on the classes ``Table``, ``Column`` and ``Mapper``, since no model may be forgotten; they act
only on tables that carry the library's mark.  Imports only the model's own parts, errors and SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import event, orm
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapper

from ..errors import ConfigurationError, UnauditedWrite
from .configuration import AuditOptions, Capture, Configuration, Roles
from .history import AuditedTable, Trail, audited_of, ensure_trail, trail_of
from .policy import Policy


class Audited:
    """The mixin that makes a model audited: every change of its rows is recorded.

    Options stand in ``__audit__``::

        class Account(Audited, Base):
            __tablename__ = "account"
            __audit__ = AuditOptions(history_table="account_past")
    """

    __audit__: AuditOptions | None = None


def track(mapped_class_or_table: Any, options: AuditOptions | None = None) -> None:
    """Audit a class that can't take the mixin, or a plain table.

    Args:
        mapped_class_or_table: a mapped class, its mapper, or a :class:`sqlalchemy.Table`.
        options: as in ``__audit__``.

    Raises:
        ConfigurationError: if it is neither, has no key, or is audited already with other options.
    """
    if isinstance(mapped_class_or_table, sa.Table):
        ensure_trail(mapped_class_or_table.metadata).track(mapped_class_or_table, options)
        return
    mapper = sa.inspect(mapped_class_or_table, raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise ConfigurationError(
            f"track({mapped_class_or_table!r}): give a mapped class or a sqlalchemy.Table; "
            "a class has to be mapped before it is tracked"
        )
    _track_hierarchy(mapper, options)


def configure(
    base_or_metadata: Any,
    *,
    schema: str | None = None,
    capture: Capture = "session",
    require_actor: bool = False,
    require_reason: bool = False,
    text_dml: Literal["refuse", "allow"] = "refuse",
    roles: Roles | None = None,
    partition: Literal["month"] | None = None,
    keys: Any = None,
    context: Mapping[str, Policy] | None = None,
    record_engine: Any = None,
    looks: bool = False,
    testing: bool = False,
) -> None:
    """Set how the models of one MetaData are recorded; once, before or after the models.

    Args:
        base_or_metadata: a declarative base, a registry, or a :class:`sqlalchemy.MetaData`.
        schema: the schema of all tables of the trail; None: each history stands in its table's schema.
        capture: who writes the history: ``"session"``, the hooks of SQLAlchemy, or ``"trigger"``, the database, which
            also sees what other programs write.
        require_actor: refuse any change with no actor in the context.
        require_reason: refuse any change with no reason in the context.
        text_dml: ``"allow"`` lets textual INSERT, UPDATE and DELETE on tables with session capture pass unrecorded.
        roles: the database roles that migrations give the trail to; None: they have no privilege section.
        partition: ``"month"`` to have PostgreSQL keep all histories in partitions, one for each month of UTC; on other
            databases it changes nothing.
        keys: the provider of the keys for ``Digest`` and ``Encrypt`` columns: a :class:`sa_audit.privacy.KeyProvider`.
        context: policies by keys of the context, such as ``{"remote_addr": Digest()}``: what is recorded of them; the
            subject of an ``Encrypt`` is another key of the context.
        record_engine: the engine on which reads, durable events and attempts are recorded; None: one derived from
            the session's, with a pool of its own.
        looks: record each look into the trail, and each export, from the command line; the account has to be able to
            write events.
        testing: allow :func:`sa_audit.testing.unguarded` for this MetaData.

    Raises:
        ConfigurationError: for a value that is not one of these, or a schema or partition that comes too late.
    """
    metadata = _metadata_of(base_or_metadata)
    ensure_trail(metadata).reconfigure(
        Configuration(
            schema=schema,
            capture=capture,
            require_actor=require_actor,
            require_reason=require_reason,
            text_dml=text_dml,
            roles=roles,
            partition=partition,
            keys=keys,
            context={} if context is None else context,
            record_engine=record_engine,
            looks=looks,
            testing=testing,
        )
    )


def _metadata_of(given: Any) -> sa.MetaData:
    metadata = given if isinstance(given, sa.MetaData) else getattr(given, "metadata", None)
    if not isinstance(metadata, sa.MetaData):
        raise ConfigurationError(f"configure({given!r}): give a declarative base or a sqlalchemy.MetaData")
    return metadata


def _track_hierarchy(mapper: Mapper[Any], options: AuditOptions | None) -> None:
    """Audit a class with those above it, in whose tables the rest of its rows stands."""
    _track_mapper(mapper, options)
    if mapper.inherits is not None and not mapper.concrete:
        _track_hierarchy(mapper.inherits, None)


def _track_mapper(mapper: Mapper[Any], options: AuditOptions | None) -> None:
    table = mapper.local_table
    if not isinstance(table, sa.Table):
        raise ConfigurationError(
            f"{mapper.class_.__name__} is mapped to {type(table).__name__.lower()}, not to a table, so its rows "
            "can't be recorded: audit the classes of the tables in it"
        )
    if audited_of(table) is None or not mapper.single:
        key = tuple(table.c[column.key] for column in mapper.primary_key if column.table is table)
        ensure_trail(table.metadata).track(table, options, key)
    ensure_trail(table.metadata).registries.add(mapper.registry)
    track_secondaries(mapper)


def track_secondaries(mapper: Mapper[Any]) -> None:
    """Audit the association tables of an audited mapper's relationships, as far as they are known."""
    for prop in _relationships(mapper):
        _track_secondary(prop)


def _relationships(mapper: Mapper[Any]) -> list[orm.RelationshipProperty[Any]]:
    return [prop for prop in mapper._props.values() if isinstance(prop, orm.RelationshipProperty)]


def _track_secondary(prop: orm.RelationshipProperty[Any]) -> None:
    secondary = _secondary_of(prop)
    if isinstance(secondary, sa.Table) and audited_of(secondary) is None:
        ensure_trail(secondary.metadata).track(secondary)


def _secondary_of(prop: orm.RelationshipProperty[Any]) -> Any:
    resolved = prop.__dict__.get("secondary")
    if resolved is not None:
        return resolved
    argument = prop._init_args.secondary
    return argument.resolved if argument.resolved is not None else argument.argument


def complete(metadata: sa.MetaData) -> Trail | None:
    """Finish the history tables of a MetaData: secondaries named by a string or lambda, late types.

    Called before tables are created, and by whoever needs all of them.  Models of other MetaData may be unfinished.
    """
    trail = trail_of(metadata)
    if trail is None:
        return None
    _configure_models(trail)
    trail.settle()
    return trail


def _configure_models(trail: Trail) -> None:
    for registry in list(trail.registries):
        registry.configure(cascade=True)


def late_secondary(table: Any) -> AuditedTable | None:
    """Give the audited side of what turns out to be an audited class's association table, or None.

    A relationship can name its secondary by a string, a lambda or a backref, which nobody knows before the mappers
    are configured; and a statement on the table itself does not configure them.

    Args:
        table: what a statement writes; anything but a table with two foreign keys is passed over.

    Raises:
        UnauditedWrite: if that can't be told, since the mappers can't be configured.
    """
    trail = trail_of(table.metadata) if isinstance(table, sa.Table) else None
    if trail is None or len(table.foreign_keys) < 2:
        return None
    try:
        _configure_models(trail)
    except (SQLAlchemyError, ConfigurationError) as error:
        raise UnauditedWrite(
            f"whether {table.fullname} is the association table of an audited class is not known, because the models "
            f"can't be configured: import all of them first ({error})"
        ) from error
    return audited_of(table)


@event.listens_for(Audited, "after_mapper_constructed", propagate=True)
def _mapped(mapper: Mapper[Any], class_: type[Any]) -> None:
    _track_hierarchy(mapper, class_.__dict__.get("__audit__") or _inherited_options(mapper, class_))


def _inherited_options(mapper: Mapper[Any], class_: type[Any]) -> AuditOptions | None:
    """Take options of an unmapped base or mixin; those of a mapped parent belong to its own table."""
    for base in class_.__mro__[1:]:
        if "__audit__" in base.__dict__ and base is not Audited:
            parent = mapper.inherits
            return None if parent is not None and issubclass(parent.class_, base) else base.__dict__["__audit__"]
    return None


@event.listens_for(Mapper, "mapper_configured")
def _configured(mapper: Mapper[Any], class_: type[Any]) -> None:
    """Follow relationships that were added, or resolved, after their class was mapped, also by another's backref."""
    audited = audited_of(mapper.local_table) is not None
    for prop in _relationships(mapper):
        if audited or any(audited_of(other.parent.local_table) is not None for other in prop._reverse_property):
            _track_secondary(prop)


@event.listens_for(sa.Table, "after_parent_attach")
def _table_attached(table: sa.Table, metadata: sa.MetaData) -> None:
    trail = metadata.info.get("sa_audit.trail") if metadata.info else None
    if trail is not None:
        trail.settle()


@event.listens_for(sa.Column, "after_parent_attach")
def _column_attached(column: sa.Column[Any], parent: Any) -> None:
    if not isinstance(parent, sa.Table):
        return
    audited = audited_of(parent)
    if isinstance(audited, AuditedTable):
        audited.add(column)
        audited.trail.settle()
