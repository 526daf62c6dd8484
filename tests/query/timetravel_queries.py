"""Queries of every kind, each giving plain values; what one gives live, it has to give in the past."""

# ruff: noqa: D103 - the names of the queries say what they are

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import (
    Session,
    aliased,
    contains_eager,
    defer,
    immediateload,
    joinedload,
    lazyload,
    raiseload,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    undefer,
    with_polymorphic,
)

from .timetravel_zoo import Animal, Aviary, Cage, Feast, Keeper, Lion, Meal, Mood, Parrot, cage_union, keeper_animal

Query = Callable[[Session], Any]
QUERIES: dict[str, Query] = {}
LATERAL: dict[str, Query] = {}


def query(function: Query) -> Query:
    """Enter a function into QUERIES."""
    QUERIES[function.__name__] = function
    return function


def shown(keeper: Keeper) -> tuple[Any, ...]:
    """Give all recorded columns of a keeper; types are compared by their names, since 1 == 1.0 == True."""
    values = (
        keeper.id,
        keeper.full_name,
        keeper.salary,
        keeper.born,
        keeper.seen,
        keeper.shift,
        keeper.mood,
        keeper.badge,
        keeper.photo,
        keeper.settings,
        keeper.on_leave,
        keeper.weight,
        keeper.note,
        keeper.home,
        keeper.boss_id,
        keeper.meal_count,
        keeper.yearly,
    )
    return tuple((type(value).__name__, value) for value in values)


def keepers(options: Any, read: Callable[[Keeper], Any]) -> Query:
    """Give a query that loads all keepers with some options, and reads something of each."""

    def run(session: Session) -> Any:
        statement = sa.select(Keeper).options(*options).order_by(Keeper.id)
        return [read(keeper) for keeper in session.scalars(statement).unique()]

    return run


def graph(keeper: Keeper) -> Any:
    """Give what the relationships of a keeper hold."""
    return (
        keeper.id,
        keeper.boss and keeper.boss.full_name,
        [member.id for member in keeper.staff],
        [(animal.name, type(animal).__name__) for animal in keeper.animals],
        [(type(meal).__name__, meal.grams, meal.animal.name) for meal in keeper.meals],
    )


for _name, _loader in {
    "lazy": lazyload,
    "selectin": selectinload,
    "joined": joinedload,
    "subquery": subqueryload,
    "immediate": immediateload,
}.items():
    QUERIES[f"loader_{_name}"] = keepers(
        [
            _loader(Keeper.boss),
            _loader(Keeper.staff),
            _loader(Keeper.animals),
            _loader(Keeper.meals).options(_loader(Meal.animal)),
        ],
        graph,
    )
QUERIES["columns"] = keepers([], shown)
QUERIES["undeferred"] = keepers([undefer(Keeper.note)], shown)
QUERIES["deferred"] = keepers([defer(Keeper.full_name)], shown)
QUERIES["association_proxy"] = keepers([], lambda keeper: list(keeper.animal_names))
QUERIES["raiseload"] = keepers([raiseload("*")], lambda keeper: keeper.full_name)
QUERIES["dynamic"] = keepers([], lambda keeper: [meal.id for meal in keeper.meals_dynamic.filter(Meal.grams > 10)])


@query
def write_only(session: Session) -> Any:
    return [meal.grams for meal in session.scalars(session.get_one(Keeper, 1).meals_write_only.select())]


@query
def get(session: Session) -> Any:
    return [(found := session.get(Keeper, number)) and found.full_name for number in (1, 2, 3, 4, 99)]


@query
def get_joined_inheritance(session: Session) -> Any:
    return [(type(animal).__name__, animal.name) for animal in (session.get(Animal, number) for number in (1, 2, 3))]


@query
def refresh(session: Session) -> Any:
    keeper = session.get_one(Keeper, 1)
    session.refresh(keeper, ["full_name", "note"])
    session.expire(keeper)
    return keeper.full_name, keeper.note


@query
def legacy_query(session: Session) -> Any:
    return session.query(Keeper.full_name).filter(Keeper.id > 1).order_by(Keeper.full_name.desc()).all()


@query
def query_count(session: Session) -> Any:
    return session.query(Keeper).join(Keeper.meals).count()


@query
def core_table(session: Session) -> Any:
    table = keeper_animal
    return [tuple(row) for row in session.execute(sa.select(table).order_by(table.c.keeper_id, table.c.animal_id))]


@query
def contains_eager_join(session: Session) -> Any:
    statement = (
        sa.select(Keeper)
        .join(Keeper.meals)
        .options(contains_eager(Keeper.meals))
        .where(Meal.grams > 10)
        .order_by(Keeper.id, Meal.id)
    )
    return [(keeper.id, [meal.id for meal in keeper.meals]) for keeper in session.scalars(statement).unique()]


@query
def joined_with_limit(session: Session) -> Any:
    statement = sa.select(Keeper).options(joinedload(Keeper.meals)).order_by(Keeper.salary.desc()).limit(2)
    return [(keeper.full_name, [meal.id for meal in keeper.meals]) for keeper in session.scalars(statement).unique()]


@query
def self_join_through_aliases(session: Session) -> Any:
    boss, staff = aliased(Keeper), aliased(Keeper, name="staff")
    statement = sa.select(boss.full_name, staff.full_name).join(staff, boss.id == staff.boss_id).order_by(staff.id)
    return [tuple(row) for row in session.execute(statement)]


@query
def table_and_its_alias(session: Session) -> Any:
    other = aliased(Keeper)
    statement = sa.select(Keeper.full_name, other.full_name).outerjoin(other, Keeper.boss_id == other.id)
    return sorted((tuple(row) for row in session.execute(statement)), key=repr)


@query
def aggregate(session: Session) -> Any:
    statement = (
        sa.select(Keeper.full_name, sa.func.count(Meal.id), sa.func.max(Meal.grams))
        .outerjoin(Keeper.meals)
        .group_by(Keeper.full_name)
        .having(sa.func.count(Meal.id) >= 0)
        .order_by(Keeper.full_name)
    )
    return [tuple(row) for row in session.execute(statement)]


@query
def grouped_by_key(session: Session) -> Any:
    statement = (
        sa.select(Keeper.full_name, Keeper.salary, sa.func.count(Meal.id))
        .outerjoin(Keeper.meals)
        .group_by(Keeper.id)
        .order_by(Keeper.born.is_(None), Keeper.full_name)
    )
    return [tuple(row) for row in session.execute(statement)]


@query
def window(session: Session) -> Any:
    rank = sa.func.row_number().over(partition_by=Meal.animal_id, order_by=Meal.grams)
    return [tuple(row) for row in session.execute(sa.select(Meal.id, rank).order_by(Meal.id))]


@query
def exists(session: Session) -> Any:
    fed = sa.select(Meal).where(Meal.keeper_id == Keeper.id).exists()
    clauses = (fed, ~fed, Keeper.meals.any(Meal.grams > 100), Keeper.boss.has(Keeper.id == 1), Keeper.animals.any())
    return [session.scalars(sa.select(Keeper.id).where(clause).order_by(Keeper.id)).all() for clause in clauses]


@query
def exists_over_entity_with_unrecorded_columns(session: Session) -> Any:
    other = aliased(Keeper)
    has_staff = sa.select(other).where(other.boss_id == Keeper.id).exists()
    return session.scalars(sa.select(Keeper.id).where(has_staff).order_by(Keeper.id)).all()


@query
def scalar_subquery_and_in(session: Session) -> Any:
    heaviest = sa.select(sa.func.max(Meal.grams)).where(Meal.keeper_id == Keeper.id).scalar_subquery()
    feeders = sa.select(Meal.keeper_id).where(Meal.grams > 100)
    statement = sa.select(Keeper.id, heaviest).where(Keeper.id.in_(feeders)).order_by(Keeper.id)
    return [tuple(row) for row in session.execute(statement)]


@query
def subquery_entity(session: Session) -> Any:
    inner = sa.select(Keeper).where(Keeper.salary > 1).subquery()
    outer = aliased(Keeper, inner)
    return session.scalars(sa.select(outer.full_name).order_by(outer.id)).all()


@query
def recursive_cte(session: Session) -> Any:
    chain = sa.select(Keeper.id, Keeper.boss_id).where(Keeper.id == 3).cte("chain", recursive=True)
    chain = chain.union_all(sa.select(Keeper.id, Keeper.boss_id).join(chain, Keeper.id == chain.c.boss_id))
    return sorted(tuple(row) for row in session.execute(sa.select(chain.c.id)))


@query
def union(session: Session) -> Any:
    both = sa.union(sa.select(Keeper.full_name), sa.select(Animal.name))
    return sorted(session.scalars(both).all())


@query
def union_of_entities(session: Session) -> Any:
    both = sa.union_all(sa.select(Keeper).where(Keeper.id == 1), sa.select(Keeper).where(Keeper.id > 2))
    found = session.scalars(sa.select(Keeper).from_statement(both)).all()
    return sorted(keeper.full_name for keeper in found)


@query
def intersect_and_except(session: Session) -> Any:
    all_, some = sa.select(Keeper.id), sa.select(Meal.keeper_id)
    return sorted(session.scalars(sa.intersect(all_, some))), sorted(session.scalars(sa.except_(all_, some)))


@query
def distinct_entities(session: Session) -> Any:
    return sorted(keeper.id for keeper in session.scalars(sa.select(Keeper).join(Keeper.meals).distinct()))


@query
def joined_inheritance(session: Session) -> Any:
    found = session.scalars(sa.select(Animal).order_by(Animal.id))
    return [(type(a).__name__, a.name, a.diet, getattr(a, "mane", 0)) for a in found]


@query
def joined_subclass(session: Session) -> Any:
    return [(lion.name, lion.mane) for lion in session.scalars(sa.select(Lion).order_by(Lion.id))]


@query
def with_polymorphic_all(session: Session) -> Any:
    every = with_polymorphic(Animal, "*")
    statement = sa.select(every).where(sa.or_(every.Lion.mane > 1, every.Parrot.words == "hello")).order_by(every.id)
    return [(type(animal).__name__, animal.name) for animal in session.scalars(statement)]


@query
def with_polymorphic_flat(session: Session) -> Any:
    every = with_polymorphic(Animal, [Lion, Parrot], flat=True, aliased=True)
    statement = sa.select(Meal.id, every.name).join(Meal.animal.of_type(every)).order_by(Meal.id)
    return [tuple(row) for row in session.execute(statement)]


@query
def selectin_polymorphic_loading(session: Session) -> Any:
    statement = sa.select(Animal).options(selectin_polymorphic(Animal, [Lion, Parrot])).order_by(Animal.id)
    return [(a.name, getattr(a, "mane", None), getattr(a, "words", None)) for a in session.scalars(statement)]


@query
def single_inheritance(session: Session) -> Any:
    return [(feast.id, feast.guests) for feast in session.scalars(sa.select(Feast))]


@query
def concrete_inheritance(session: Session) -> Any:
    return (
        [(cage.id, cage.size) for cage in session.scalars(sa.select(Cage))],
        [(aviary.id, aviary.size, aviary.height) for aviary in session.scalars(sa.select(Aviary))],
        sorted(tuple(row) for row in session.execute(sa.select(cage_union.c.kind, cage_union.c.size))),
    )


@query
def hybrid(session: Session) -> Any:
    return session.scalars(sa.select(Keeper.id).where(Keeper.yearly > 13).order_by(Keeper.yearly)).all()


@query
def composite_attribute(session: Session) -> Any:
    return session.execute(sa.select(Keeper.home).where(Keeper.id == 1)).scalar_one()


@query
def enum_in_where_and_order(session: Session) -> Any:
    bold = session.scalars(sa.select(Keeper.id).where(Keeper.mood == Mood.BRAVE)).all()
    some = sa.select(Keeper.id).where(Keeper.mood.in_([Mood.WARY, Mood.BRAVE])).order_by(Keeper.id)
    return bold, session.scalars(some).all()


@query
def json_path(session: Session) -> Any:
    return session.scalars(sa.select(Keeper.settings["theme"][0].as_string()).where(Keeper.id == 1)).all()


@query
def loose_text(session: Session) -> Any:
    statement = sa.select(Keeper.id).where(sa.text("keeper.salary > :least")).order_by(Keeper.id)
    return session.scalars(statement, {"least": 2}).all()


@query
def many_to_many_secondary_subquery(session: Session) -> Any:
    pairs = sa.select(keeper_animal.c.keeper_id).where(keeper_animal.c.animal_id == 2).subquery()
    return sorted(session.scalars(sa.select(Keeper.full_name).join(pairs, pairs.c.keeper_id == Keeper.id)))


@query
def streamed(session: Session) -> Any:
    statement = sa.select(Keeper).order_by(Keeper.id).execution_options(yield_per=1)
    return [keeper.full_name for part in session.scalars(statement).partitions() for keeper in part]


@query
def on_the_connection(session: Session) -> Any:
    return session.connection().execute(sa.select(Keeper.__table__.c.name).order_by(Keeper.id)).scalars().all()


@query
def bulk_in_parameters(session: Session) -> Any:
    return session.scalars(sa.select(Keeper.id).where(Keeper.id.in_(range(1, 300))).order_by(Keeper.id)).all()


def lateral(session: Session) -> Any:
    last = sa.select(Meal.id, Meal.grams).where(Meal.keeper_id == Keeper.id).order_by(Meal.id.desc()).limit(1).lateral()
    statement = sa.select(Keeper.id, last.c.grams).outerjoin(last, sa.true()).order_by(Keeper.id)
    return [tuple(row) for row in session.execute(statement)]


def lateral_entity(session: Session) -> Any:
    last = sa.select(Meal).where(Meal.keeper_id == Keeper.id).order_by(Meal.id.desc()).limit(1).lateral("last")
    meal = aliased(Meal, last)
    statement = sa.select(Keeper.id, meal).join(meal, sa.true()).order_by(Keeper.id)
    return [(number, found.grams) for number, found in session.execute(statement)]


LATERAL |= {"lateral": lateral, "lateral_entity": lateral_entity}


def enum_order(session: Session) -> Any:
    return session.scalars(sa.select(Keeper.mood).where(Keeper.mood.is_not(None)).order_by(Keeper.mood)).all()


POSTGRESQL = LATERAL | {"enum_order": enum_order}
