"""Audit an application that knows nothing of it: Optuna's relational storage, its models given to `track` unchanged.

Runs a study in several threads, each with an actor of its own; then asks the trail what happened to one trial, looks at
the study as it was halfway, deletes it, and brings it back.  Usage::

    python examples/optuna_study/study.py URL [--trials 100] [--threads 4]

The database should be empty, since the history begins with the tables.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy.orm import Session

import sa_audit

Callback = Callable[[optuna.Study, FrozenTrial], None]

STUDY = "audited study"
STEPS = 8


def track_storage() -> list[sa.Table]:
    """Audit all of Optuna's models, before its storage makes their tables.

    Returns:
        The audited tables, each after those that it refers to.
    """
    for mapper in models.BaseModel.registry.mappers:
        sa_audit.track(mapper.class_)
    return [table for table in models.BaseModel.metadata.sorted_tables if not sa_audit.is_trail_table(table)]


def open_storage(url: str) -> RDBStorage:
    """Open Optuna's storage, which makes its tables and, with them, their history and guards.

    Args:
        url: of the database; several threads wait for a SQLite file up to a minute.
    """
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return RDBStorage(url, engine_kwargs=options)


def objective(trial: optuna.Trial) -> float:
    """Play a training run: three parameters, a curve of losses, notes, and now and then a result that is no number."""
    rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    layers = trial.suggest_int("layers", 1, 6)
    optimizer = trial.suggest_categorical("optimizer", ["adam", "sgd", None])
    trial.set_user_attr("state", "training")
    loss = abs(math.log10(rate) + 3) + abs(layers - 3) / 3 + (0.5 if optimizer is None else 0.0)
    for step in range(STEPS):
        broken = trial.number % 17 == 3 and step == 2
        trial.report(math.nan if broken else loss * (1 + 1 / (step + 1)), step)
        if trial.should_prune():
            trial.set_user_attr("state", f"pruned at {step} \u2013 loss {loss!r}")
            raise optuna.TrialPruned
    trial.set_user_attr("state", {"finished": True, "loss": loss, "layers": [layers] * layers})
    if trial.number % 23 == 5:
        raise ArithmeticError("diverged")
    return math.inf if trial.number % 19 == 7 else loss


def run_study(storage: RDBStorage, *, trials: int, threads: int, callback: Callback | None = None) -> optuna.Study:
    """Run a study; each thread is an actor of its own, since a new thread begins with no context.

    Args:
        storage: from `open_storage`, with the tables tracked before.
        trials: how many in all.
        threads: among how many threads they are divided.
        callback: called by the thread that ended a trial, while the others go on.
    """
    with sa_audit.context(actor="scheduler", reason="nightly search"):
        study = optuna.create_study(
            study_name=STUDY,
            storage=storage,
            sampler=optuna.samplers.RandomSampler(seed=7),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3),
        )

    def count(study: optuna.Study, trial: FrozenTrial) -> None:
        study.set_user_attr("last trial", trial.number)

    def work(number: int) -> None:
        share = trials // threads + (number < trials % threads)
        with sa_audit.context(actor=f"worker {number}", reason="nightly search"):
            study.optimize(
                objective,
                n_trials=share,
                catch=(ArithmeticError,),
                callbacks=[count] if callback is None else [count, callback],
            )
        storage.remove_session()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return study


def delete_study(storage: RDBStorage) -> int:
    """Delete the study and, by Optuna's cascades, all that belongs to it.

    Returns:
        The id of the audit transaction that recorded it.
    """
    with Session(storage.engine) as session:
        study_id = session.scalars(sa.select(models.StudyModel.study_id).filter_by(study_name=STUDY)).one()
    with sa_audit.context(actor="mallory", reason="oops"):
        optuna.delete_study(study_name=STUDY, storage=storage)
    storage.remove_session()
    with Session(storage.engine) as session:
        return sa_audit.history(session, models.StudyModel, study_id)[-1].transaction.id


def tell_trial(session: Session, number: int) -> None:
    """Print the history of one trial."""
    trial = session.scalars(sa.select(models.TrialModel).filter_by(number=number)).one()
    print(f"what happened to trial {number}:")
    for change in sa_audit.history(session, trial):
        values = {name: after for name, (_, after) in change.diff.items()}
        print(f"  {change.recorded_at:%H:%M:%S.%f} {change.actor}: {change.operation} {values}")


def count_states(session: Session) -> dict[str, int]:
    """Count the trials by state, now or, in a session of the past, then."""
    counted = session.execute(sa.select(models.TrialModel.state, sa.func.count()).group_by(models.TrialModel.state))
    return {state.name: count for state, count in counted}


def main() -> None:
    """Run the story, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of an empty database")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    tables = track_storage()
    storage = open_storage(options.url)
    run_study(storage, trials=options.trials, threads=options.threads)
    with Session(storage.engine) as session:
        tell_trial(session, 0)
        differing = sum(len(list(sa_audit.reconcile(session, table))) for table in tables)
        print(f"rows in {len(tables)} tables that differ from what was recorded of them: {differing}")
        halfway = session.scalars(
            sa.select(models.TrialModel._datetime_complete_utc)
            .where(models.TrialModel._datetime_complete_utc.is_not(None))
            .order_by(models.TrialModel._datetime_complete_utc)
            .offset(options.trials // 2)
            .limit(1)
        ).one()
    print("the study now:    ", _states(storage.engine))
    with sa_audit.as_of(storage.engine, f"{halfway.isoformat()}Z") as past:
        print("the study halfway:", count_states(past))
    transaction = delete_study(storage)
    print("deleted:          ", _states(storage.engine))
    with sa_audit.context(actor="alice", reason="deleted by mistake"), Session(storage.engine) as session:
        sa_audit.revert(session, transaction)
        session.commit()
    print("brought back:     ", _states(storage.engine))


def _states(engine: sa.Engine) -> dict[str, int]:
    with Session(engine) as session:
        return count_states(session)


if __name__ == "__main__":
    main()
