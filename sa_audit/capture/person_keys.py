"""The keys of persons in the database: made with the first value, looked up by person or by name.

Imports model, ddl, privacy, errors, and of capture the connection of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..ddl.backend import OWN, Entry, SchemaMap, backend_for
from ..errors import UnusableKey
from ..model import Trail
from ..privacy.encryption import PersonKey, Secrets, Wrapped, commitment_of, new_key, wrapping_context
from .own_connection import is_deadlock, is_own, own_transaction

CREATED: Final = "created"
DESTROYED: Final = "destroyed"
CHUNK: Final = 500
NAME: Final = 32
"""Characters of the name of a key."""
_TOUCHED: Final = "sa_audit.persons"
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Entries:
    """Gives the entry under which new keys are recorded.

    Attributes:
        here: that of the transaction in which they are made.
        alone: on a connection of the trail's own, a new one.
    """

    here: Callable[[], Entry]
    alone: Callable[[Connection], Entry]


def touched_here(connection: Connection) -> frozenset[str]:
    """Give the persons whose keys a connection's present transaction made or destroyed: others would wait for it."""
    root, persons = connection.info.get(_TOUCHED, (None, frozenset()))
    return persons if root is not None and root() is connection.get_transaction() else frozenset()


def _touch(connection: Connection, subjects: Iterable[str]) -> None:
    root = connection.get_transaction()
    if root is not None:
        connection.info[_TOUCHED] = (weakref.ref(root), touched_here(connection) | frozenset(subjects))


def secrets_of(trail: Trail) -> Secrets:
    """Give the keys that are kept in memory for a trail.

    Raises:
        UnusableKey: if the models are configured without a provider.
    """
    provider = trail.configuration.keys
    if provider is None:
        raise UnusableKey(
            "values are encrypted, and there is no key-encryption key: sa_audit.configure(base, keys=...) names where "
            "keys come from, such as sa_audit.privacy.FileKeys(path)"
        )
    if trail.secrets is None or trail.secrets.provider is not provider:
        trail.secrets = Secrets(provider)
    secrets: Secrets = trail.secrets
    return secrets


class PersonKeys:
    """The keys of persons on one connection.

    Args:
        connection: the connection.
        trail: whose keys.
        schemas: the statement's translation of schemas.
    """

    def __init__(self, connection: Connection, trail: Trail, schemas: SchemaMap | None = None) -> None:
        if trail.key is None or trail.person_key is None:
            raise UnusableKey(
                "there are no keys of persons: configure(base, keys=...) names where keys come from, such as "
                "sa_audit.privacy.FileKeys(path), and makes their tables known"
            )
        self.connection = connection
        self.events, self.keys = trail.key, trail.person_key
        self._options: dict[str, Any] = {**OWN, **({"schema_translate_map": dict(schemas)} if schemas else {})}
        self._trail, self._schemas = trail, schemas
        self._secrets = secrets_of(trail)

    def of(
        self, subjects: Collection[str], entries: Entries, named: Mapping[str, str] | None = None
    ) -> dict[str, PersonKey]:
        """Give the keys of persons, made now for those that have none.

        They are made on a connection of the trail's own and committed at once, so that no transaction waits for
        another's to end, and values that survive a rollback have a key; in the transaction itself only where the
        database has one writer, or where that transaction has destroyed a person's former key.

        Args:
            subjects: the persons, of at most :data:`MAX_SUBJECT` characters each.
            entries: gives the entry under which a new key is recorded.
            named: the names of keys, by persons, as far as the database has just told them.

        Raises:
            UnusableKey: if there is no key of a person after it was made.
        """
        told = named or {}
        found = self._by_name((subject, told[subject]) for subject in subjects if subject in told)
        found |= self._by_subject([subject for subject in subjects if subject not in found])
        missing = sorted(subject for subject in subjects if subject not in found)
        if missing:
            found |= self._make(missing, entries)
        for subject in missing:
            if subject not in found:
                raise UnusableKey(
                    f"the database keeps no key for {subject!r}: it takes this for the name of somebody else, or has "
                    "changed it; look at the collation of audit_person_key.subject, and at triggers on that table"
                )
        return found

    def _by_subject(self, subjects: Collection[str], *, fresh: bool = False) -> dict[str, PersonKey]:
        return self._by_name(self._among("names", subjects, fresh=fresh), fresh=fresh)

    def _by_name(self, named: Iterable[Any], *, fresh: bool = False) -> dict[str, PersonKey]:
        """Give the keys of persons of whom the database has told the names of their keys.

        Of those that are kept in memory no more is asked.
        """
        found: dict[str, PersonKey] = {}
        others: list[str] = []
        for subject, name in named:
            known = self._secrets.known(name)
            if known is None:
                others.append(subject)
            else:
                found[subject] = known
        for name, subject, wrapped, by, commitment in self._among("wrapped", others, fresh=fresh):
            found[subject] = self._secrets.unwrapped(Wrapped(name, subject, wrapped, by, commitment))
        return found

    def _among(self, what: str, subjects: Collection[str], *, fresh: bool) -> Iterator[Any]:
        """Look up, a chunk at a time, the keys of persons: their ``names``, or all that is kept ``wrapped``."""
        backend, memo = backend_for(self.connection.dialect), self._trail.memo
        query = memo.get((what, backend, fresh))
        if query is None:
            query = sa.select(self.keys.c.subject, self.keys.c.name) if what == "names" else self._wrapped()
            query = query.where(backend.among(self.keys.c.subject, "subjects"))
            query = memo[what, backend, fresh] = backend.current(query) if fresh else query
        wanted = list(subjects)
        for start in range(0, len(wanted), CHUNK):
            yield from self._execute(query, {"subjects": wanted[start : start + CHUNK]}).all()

    def _wrapped(self) -> sa.Select[Any]:
        keys, events = self.keys, self.events
        made = sa.and_(events.c.name == keys.c.name, events.c.event == CREATED)
        return sa.select(
            keys.c.name, keys.c.subject, keys.c.wrapped, keys.c.wrapped_by, events.c.commitment
        ).select_from(keys.join(events, made))

    def _make(self, subjects: Sequence[str], entries: Entries) -> dict[str, PersonKey]:
        """Make keys, but for persons who were given one at the same time by another transaction."""
        made = {subject: new_key() for subject in subjects}
        wrapped = [self._wrap(subject, key) for subject, key in made.items()]
        if self._makes_here(subjects):
            self._insert(wrapped, entries.here())
            _touch(self.connection, subjects)
            return self._kept(made)
        for left in reversed(range(_TRIES)):
            try:
                with own_transaction(self.connection, self._trail) as own:
                    there = PersonKeys(own, self._trail, self._schemas)
                    there._insert(wrapped, entries.alone(own))
                    return there._kept(made)
            except DBAPIError as error:  # others make keys at the same time, and it is this transaction alone that goes
                if not left or not is_deadlock(error):
                    raise
        raise AssertionError("the last try returns or raises")

    def _makes_here(self, subjects: Collection[str]) -> bool:
        if is_own(self.connection) or not touched_here(self.connection).isdisjoint(subjects):
            return True
        alone = self._trail.configuration.record_engine is None
        return alone and backend_for(self.connection.dialect).writes_alone(self.connection)

    def _wrap(self, subject: str, key: PersonKey) -> dict[str, Any]:
        provider = self._secrets.provider
        return {
            "name": key.name,
            "subject": subject,
            "wrapped": provider.wrap(key.secret, wrapping_context(key.name, subject)),
            "wrapped_by": provider.current,
            "commitment": commitment_of(key),
        }

    def _insert(self, rows: Sequence[Mapping[str, Any]], entry: Entry) -> None:
        backend_for(self.connection.dialect).insert_keys(self.connection, self._trail, entry, rows, self._options)

    def _kept(self, made: Mapping[str, PersonKey]) -> dict[str, PersonKey]:
        """Give the keys that the database has now, and keep those in memory that are the ones made here."""
        found: dict[str, PersonKey] = {}
        others = []
        for subject, name in self._among("names", made, fresh=True):
            if subject in made and made[subject].name == name:
                found[subject] = self._secrets.keep(made[subject])
            else:
                others.append(subject)
        return found | self._by_subject(others, fresh=True)

    def named(self, names: Collection[str]) -> dict[str, PersonKey | None]:
        """Give keys by their names, None for one that was destroyed.

        Raises:
            IntegrityFinding: if one is neither there nor destroyed, or is another one than was made.
            UnusableKey: if one can't be unwrapped.
        """
        wanted = self.fetch(names)
        return {name: self._secrets.open(name) for name in wanted}

    def fetch(self, names: Collection[str]) -> list[str]:
        """Read keys by their names, to be unwrapped when they are needed; give the names."""
        wanted = list(names)
        for start in range(0, len(wanted), CHUNK):
            self._load(self.events.c.name.in_(wanted[start : start + CHUNK]))
        late = [name for name in wanted if not self._secrets.is_loaded(name)]
        if late and not self._makes_here(()):  # made after the snapshot that this transaction reads
            with own_transaction(self.connection, self._trail) as own:
                PersonKeys(own, self._trail, self._schemas)._load(self.events.c.name.in_(late))
        return wanted

    def load(self) -> Secrets:
        """Read all keys, to be unwrapped when they are needed."""
        self._load(sa.true())
        return self._secrets

    def _load(self, condition: Any) -> None:
        keys, events = self.keys, self.events
        columns = (
            events.c.name,
            events.c.event,
            events.c.commitment,
            keys.c.subject,
            keys.c.wrapped,
            keys.c.wrapped_by,
        )
        query = sa.select(*columns).select_from(events.outerjoin(keys, keys.c.name == events.c.name)).where(condition)
        found: dict[str, Wrapped | None] = {}
        for name, event, commitment, subject, wrapped, by in self._execute(query):
            if event == DESTROYED and wrapped is None:
                found[name] = None
            elif event == CREATED and wrapped is not None:
                found[name] = Wrapped(name, subject, wrapped, by, commitment)
        self._secrets.loaded(found)

    def destroy(self, subject: str, reason: str | None, entry: Callable[[], Entry]) -> list[str]:
        """Destroy the keys of a person; give their names.

        Args:
            subject: the person.
            reason: why.
            entry: gives the transaction's entry.
        """
        backend, query = backend_for(self.connection.dialect), sa.select(self.keys.c.name)
        names = []
        for name in self._execute(query.where(self.keys.c.subject == subject)).scalars().all():
            locked = query.where(self.keys.c.name == name).with_for_update()
            if self._execute(locked).first() is None:
                continue  # somebody else was first
            made = entry()
            said = {"name": name, "event": DESTROYED, "commitment": None, "reason": reason}
            backend.insert_key(self.connection, self._trail, made, said)
            self._execute(sa.delete(self.keys).where(self.keys.c.name == name))  # which its guard lets pass now
            self._secrets.forget(name)
            names.append(name)
        if names:
            _touch(self.connection, [subject])
        return names

    def rewrap(self) -> int:
        """Wrap all keys anew that another than the current key-encryption key wraps; give their number."""
        provider = self._secrets.provider
        query = self._wrapped().where(self.keys.c.wrapped_by != provider.current).with_for_update(of=self.keys)
        rows = list(self._execute(query))
        for name, subject, wrapped, by, commitment in rows:
            key = self._secrets.unwrapped(Wrapped(name, subject, wrapped, by, commitment))
            values = {
                "wrapped": provider.wrap(key.secret, wrapping_context(name, subject)),
                "wrapped_by": provider.current,
            }
            self._execute(sa.update(self.keys).where(self.keys.c.name == name).values(values))
        return len(rows)

    def _execute(self, statement: Any, parameters: Any = None) -> Any:
        return self.connection.execute(statement, parameters, execution_options=self._options)
