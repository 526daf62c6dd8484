"""The demo's story: a bank on a SQLite file, what its trail answers, and what it refuses.

The months are simulated, and the story says so: SQLite has no clock of its own, so the library reads the clock of
the process, and the demo gives it another one through :mod:`sa_audit.capture.clock`.
"""

from __future__ import annotations

import datetime as dt
import json as json_text
import shlex
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from rich.console import Console, Group, RenderableType
from rich.text import Text
from sqlalchemy import orm

from ..capture import clock
from ..capture.context import context
from ..query import blame, history, reconcile, restore, trail
from ..query.change import Change, Discrepancy
from ..query.timetravel import as_of
from .demo_bank import Account, Base, Calendar, Customer, run_the_bank
from .encoding import moment, to_json, to_text
from .failure import CantRun, WrongUsage
from .results import change_json, changes_table, grid, plain, who

YEAR: Final = 2024
QUARTER_END: Final = dt.date(YEAR, 3, 31)
ACCOUNT: Final = 2
MODELS: Final = "sa_audit.cli.demo_bank:Base"
FORGERIES: Final = (
    f"UPDATE account_history SET balance = 99999900 WHERE id = {ACCOUNT}",
    f"DELETE FROM account_history WHERE id = {ACCOUNT}",
    "UPDATE audit_transaction SET actor = 'teller:3' WHERE actor = 'desk:fraud'",
)
EXPLORE: Final = (
    "log --actor desk:fraud",
    f"show Account {ACCOUNT}",
    f"diff Account {ACCOUNT} {YEAR}-01-31 {YEAR}-06-30",
    f"as-of {QUARTER_END} Customer",
    f"restore Customer 3 {QUARTER_END} --actor teller:7 --reason 'came back'",
)
BYPASS: Final = f"UPDATE account SET balance = balance + 1000000 WHERE id = {ACCOUNT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happened in the demo.

    JSON: ``{"path", "url", "models", "transactions", "changes", "actors": {actor: changes}, "history": [change],
    "quarter_end": {"when", "rows": [{"then": row or null, "now": row or null}]}, "blame": {attribute: change},
    "refused": [{"statement", "error"}], "bypass": statement, "reconcile": [{"identity", "kind", "diff": {attribute:
    {"recorded", "present"}}}], "repair": change, "explore": [command]}``
    """

    path: Path
    actors: Mapping[str, int]
    transactions: int
    history: Sequence[Change]
    quarter_end: Sequence[tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]]
    blame: Mapping[str, Change]
    refused: Sequence[tuple[str, str]]
    reconcile: Sequence[Discrepancy]
    repair: Change

    @property
    def url(self) -> str:
        """The database, as the command line takes it."""
        return sa.URL.create("sqlite", database=str(self.path)).render_as_string()

    @property
    def where(self) -> str:
        """The options that name this database and its models."""
        return f"--url {shlex.quote(self.url)} --models {MODELS}"

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return {
            "path": str(self.path),
            "url": self.url,
            "models": MODELS,
            "transactions": self.transactions,
            "changes": sum(self.actors.values()),
            "actors": dict(self.actors),
            "history": [change_json(change) for change in self.history],
            "quarter_end": {
                "when": QUARTER_END.isoformat(),
                "rows": [{"then": to_json(then), "now": to_json(now)} for then, now in self.quarter_end],
            },
            "blame": {name: change_json(change) for name, change in self.blame.items()},
            "refused": [{"statement": statement, "error": error} for statement, error in self.refused],
            "bypass": BYPASS,
            "reconcile": [
                {"identity": to_json(found.identity), "kind": found.kind, "diff": _pairs(found.diff)}
                for found in self.reconcile
            ],
            "repair": change_json(self.repair),
            "explore": [f"sa-audit {command} {self.where}" for command in EXPLORE],
        }

    def render(self) -> RenderableType:
        """Give it for people."""
        return Group(*(part for section in _sections(self) for part in section))


def tell(path: Path, *, console: Console, json: bool) -> None:
    """Make the bank, let it work, ask its trail, and print the story.

    Args:
        path: the file to make; nothing may stand there.
        console: where the story is printed.
        json: print it as JSON instead.

    Raises:
        WrongUsage: if there is something at ``path`` already, or no directory for it.
        CantRun: if the database let a forgery pass.
    """
    if path.exists():
        raise WrongUsage(f"{path} is there already, and the demo overwrites nothing: remove it, or give another --path")
    if not path.absolute().parent.is_dir():
        raise WrongUsage(f"there is no directory {path.absolute().parent} for the demo's file: give another --path")
    with _removed_on_failure(path):
        story = _act(path)
    if json:
        console.out(json_text.dumps(story.to_json(), indent=2), highlight=False)
    else:
        console.print(story.render(), crop=False)


# -- what happens -----------------------------------------------------------------------


def _act(path: Path) -> Story:
    calendar = Calendar(YEAR)
    _create(path, calendar)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    try:
        with clock.simulated(calendar):
            run_the_bank(engine, calendar)
            with orm.Session(engine) as session:
                entries = trail(session, base=Base, limit=1000).entries
                present = _accounts(session)
                told = history(session, Account, ACCOUNT)
                blamed = blame(session, Account, ACCOUNT)
            with as_of(engine, QUARTER_END) as past:
                then = _accounts(past)
            refused = [(statement, _refusal(path, statement)) for statement in FORGERIES]
            _bypass(path)
            calendar.go_to(7, 1)
            with orm.Session(engine) as session:
                found = list(reconcile(session, Account))
            repair = _repair(engine)
    finally:
        engine.dispose()
    actors: dict[str, int] = {}
    for entry in entries:
        actors[entry.actor or ""] = actors.get(entry.actor or "", 0) + 1
    return Story(
        path=path,
        actors=actors,
        transactions=len({entry.transaction.id for entry in entries}),
        history=told,
        quarter_end=[(then.get(key), present.get(key)) for key in sorted(then.keys() | present.keys())],
        blame=blamed,
        refused=refused,
        reconcile=found,
        repair=repair,
    )


def _create(path: Path, calendar: Calendar) -> None:
    """Create the tables; in this connection SQLite's own idea of "now", which dates them, is the simulated one."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        driver.create_function("strftime", -1, lambda *_: calendar().strftime("%Y-%m-%d %H:%M:%S.%f"))
        Base.metadata.create_all(connection)
    engine.dispose()


def _accounts(session: orm.Session) -> dict[int, dict[str, Any]]:
    """Give all accounts with their customers' names, by the same query for the present and the past."""
    statement = sa.select(Account.id, Customer.name, Account.kind, Account.balance, Account.status).join(
        Account.customer
    )
    return {row.id: dict(row._mapping) for row in session.execute(statement.order_by(Account.id))}


def _refusal(path: Path, statement: str) -> str:
    """Try to falsify the trail past SQLAlchemy, and give the database's answer."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            connection.execute(statement)
        except sqlite3.IntegrityError as error:
            return str(error)
    raise CantRun(f"the database let a forgery of its trail pass: {statement}")


def _bypass(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(BYPASS)


def _repair(engine: sa.Engine) -> Change:
    with context(actor="desk:audit", reason="unrecorded change undone"), orm.Session(engine) as session:
        restore(session, Account, ACCOUNT, dt.date(YEAR, 6, 30))
        session.commit()
        return history(session, Account, ACCOUNT)[-1]


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


# -- how it is told ---------------------------------------------------------------------


def _sections(story: Story) -> Iterator[list[RenderableType]]:
    changes = sum(story.actors.values())
    yield _section(
        "A bank with a camera that nobody can switch off",
        f"Half a year of a small bank, January to June {YEAR}, on the SQLite file {story.path}: "
        f"{story.transactions} transactions made {changes} changes. The application only says who acts and why; "
        "its models carry the mixin Audited, and the rest is recorded by itself.",
        "The months are simulated: SQLite has no clock of its own, so the demo gave the library one. "
        "Elsewhere the database's clock counts, which the application can't set.",
        _actors(story),
    )
    yield _section(
        f"1. What happened to account {ACCOUNT}?",
        f"history(session, Account, {ACCOUNT})",
        changes_table(story.history, with_entity=False),
    )
    yield _section(
        "2. What was it at the quarter's end?",
        f"as_of(engine, date({YEAR}, {QUARTER_END.month}, {QUARTER_END.day})): the application's own query, "
        "with its join, in the past and now.",
        _quarter(story),
    )
    yield _section(
        "3. Who made it what it is?",
        f"blame(session, Account, {ACCOUNT})",
        _blame(story),
    )
    yield _section(
        "4. Can the record be falsified?",
        "Past SQLAlchemy, straight on the database file:",
        *(_refused(statement, error) for statement, error in story.refused),
        "The database itself refused. (Whoever owns the file can drop the guards: this holds against mistakes and "
        "against the application.)",
    )
    yield _section(
        "5. And a change behind the trail's back?",
        "Straight on the database file, SQLite obeys, and nothing records it:",
        plain(f"  {BYPASS}", style="bold"),
        "But the data no longer fits the last recorded state. reconcile(session, Account):",
        _discrepancies(story),
        "restore() undoes it, and is recorded as any other change:",
        changes_table([story.repair], with_entity=False),
    )
    yield _section(
        "Explore it",
        "The file stays. Go on with:",
        *(_command(f"  sa-audit {command} \\\n      {story.where}") for command in EXPLORE),
    )


def _section(title: str, *parts: RenderableType) -> list[RenderableType]:
    heading: list[RenderableType] = [Text(title, style="bold"), Text("─" * len(title), style="dim")]
    return heading + [line for part in parts for line in (plain(part) if isinstance(part, str) else part, Text(""))]


def _command(text: str) -> Text:
    """Give a command that can be copied whole, however narrow the terminal is."""
    return Text(text, style="green", no_wrap=True, overflow="ignore")


def _actors(story: Story) -> RenderableType:
    table = grid("actor", "changes")
    for actor, count in sorted(story.actors.items(), key=lambda item: -item[1]):
        table.add_row(plain(actor, style="cyan"), plain(str(count)))
    return table


def _quarter(story: Story) -> RenderableType:
    table = grid("account", "customer", "kind", f"on {QUARTER_END}", "now")
    for then, now in story.quarter_end:
        known = then or now or {}
        table.add_row(
            plain(str(known["id"])),
            plain(known["name"]),
            plain(known["kind"]),
            plain(_standing(then)),
            plain(_standing(now)),
        )
    return table


def _standing(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "(no such account)"
    return f"{_money(row['balance'])}, {row['status'].value}"


def _money(amount: Decimal) -> str:
    return f"{amount:,.2f}"


def _blame(story: Story) -> RenderableType:
    table = grid("attribute", "value", "since (UTC)", "who", "why")
    for name, change in story.blame.items():
        table.add_row(
            plain(name),
            plain(to_text(change.state[name])),
            plain(moment(change.recorded_at)),
            who(change.transaction),
            plain(str(change.reason or "")),
        )
    return table


def _refused(statement: str, error: str) -> RenderableType:
    return Group(plain(f"  {statement}", style="bold"), plain(f"  → {error}", style="red"))


def _discrepancies(story: Story) -> RenderableType:
    table = grid("account", "attribute", "recorded", "present")
    for found in story.reconcile:
        for name, (recorded, present) in found.diff.items():
            table.add_row(
                plain(str(found.identity[0])),
                plain(name),
                plain(to_text(recorded)),
                plain(to_text(present), style="red"),
            )
    return table


def _pairs(diff: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    return {name: {"recorded": to_json(one), "present": to_json(other)} for name, (one, other) in diff.items()}
