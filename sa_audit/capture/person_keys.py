"""The keys of persons in the database: made with the first value, looked up by person or by name.

Imports model, ddl, privacy, errors, and of capture the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import OWN, Backend, Entry, SchemaMap, backend_for
from ..errors import UnusableKey
from ..model import Trail
from ..privacy.encryption import PersonKey, Secrets, Wrapped, commitment_of, new_key, wrapping_context

CREATED: Final = "created"
DESTROYED: Final = "destroyed"
CHUNK: Final = 500


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
            raise UnusableKey("no model of this MetaData encrypts, so there are no keys of persons")
        self.connection = connection
        self.events, self.keys = trail.key, trail.person_key
        self._options: dict[str, Any] = {**OWN, **({"schema_translate_map": dict(schemas)} if schemas else {})}
        self._secrets = secrets_of(trail)

    def of(self, subjects: Collection[str], entry: Callable[[], Entry]) -> dict[str, PersonKey]:
        """Give the keys of persons, made now for those that have none.

        Args:
            subjects: the persons, of at most :data:`MAX_SUBJECT` characters each.
            entry: gives the transaction's entry, under which a new key is recorded.

        Raises:
            UnusableKey: if there is no key of a person after it was made.
        """
        found = self._by_subject(subjects)
        missing = [subject for subject in subjects if subject not in found]
        if missing:
            self._make(missing, entry())
            found |= self._by_subject(missing, fresh=True)
        for subject in missing:
            if subject not in found:
                raise UnusableKey(
                    f"the database keeps no key for {subject!r}: it takes this for the name of somebody else, or has "
                    "changed it; look at the collation of audit_person_key.subject, and at triggers on that table"
                )
        return found

    def _by_subject(self, subjects: Collection[str], *, fresh: bool = False) -> dict[str, PersonKey]:
        found: dict[str, PersonKey] = {}
        wanted = list(subjects)
        for start in range(0, len(wanted), CHUNK):
            among = self.keys.c.subject.in_(wanted[start : start + CHUNK])
            query = self._wrapped().where(among)
            if fresh:
                query = backend_for(self.connection.dialect).current(query)
            for name, subject, wrapped, by, commitment in self._execute(query):
                found[subject] = self._secrets.unwrapped(Wrapped(name, subject, wrapped, by, commitment))
        return found

    def _wrapped(self) -> sa.Select[Any]:
        keys, events = self.keys, self.events
        made = sa.and_(events.c.name == keys.c.name, events.c.event == CREATED)
        return sa.select(
            keys.c.name, keys.c.subject, keys.c.wrapped, keys.c.wrapped_by, events.c.commitment
        ).select_from(keys.join(events, made))

    def _make(self, subjects: Iterable[str], entry: Entry) -> None:
        """Make keys, but for persons who were given one at the same time by another transaction."""
        backend: Backend = backend_for(self.connection.dialect)
        provider = self._secrets.provider
        for subject in subjects:
            key = new_key()
            row = {
                "name": key.name,
                "subject": subject,
                "wrapped": provider.wrap(key.secret, wrapping_context(key.name, subject)),
                "wrapped_by": provider.current,
            }
            if self._execute(backend.insert_absent(self.keys, "subject"), row).rowcount == 0:
                continue
            said = {"name": key.name, "event": CREATED, "commitment": commitment_of(key)}
            self._execute(sa.insert(self.events), {**said, "audit_tx": entry.id, "audit_at": entry.recorded_at})

    def named(self, names: Collection[str]) -> dict[str, PersonKey | None]:
        """Give keys by their names, None for one that was destroyed.

        Raises:
            IntegrityFinding: if one is neither there nor destroyed, or is another one than was made.
            UnusableKey: if one can't be unwrapped.
        """
        wanted = list(names)
        for start in range(0, len(wanted), CHUNK):
            self._load(self.events.c.name.in_(wanted[start : start + CHUNK]))
        return {name: self._secrets.open(name) for name in wanted}

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
        query = sa.select(self.keys.c.name).where(self.keys.c.subject == subject).with_for_update()
        names = [row[0] for row in self._execute(query)]
        for name in names:
            made = entry()
            self._execute(sa.delete(self.keys).where(self.keys.c.name == name))
            said = {"name": name, "event": DESTROYED, "reason": reason}
            self._execute(sa.insert(self.events), {**said, "audit_tx": made.id, "audit_at": made.recorded_at})
            self._secrets.forget(name)
        return names

    def rewrap(self) -> int:
        """Wrap all keys anew that another than the current key-encryption key wraps; give their number."""
        provider = self._secrets.provider
        query = self._wrapped().where(self.keys.c.wrapped_by != provider.current).with_for_update()
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
