"""The hub, killed at any moment: what it acknowledged it has, nothing twice, and no film is lost to the readers."""

from __future__ import annotations

import hashlib
import http.client
import io
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.box import PATIENCE, ROOT
from tests.fault.power import WORST, Disk
from tests.fault.test_power import cuts
from tests.hub import DATA, EPOCH, PROGRAMME, SHA, SITE, Courier, Sender, Served, image, opened, over, result, settings
from tests.postgresql import Postgresql, postgresql
from web.hub import films, inbox, objects, sites, tasks
from web.hub.blobs import Files
from web.hub.config import Config, Database
from web.hub.here import Hub
from web.hub.objects import Took
from web.hub.records import Reader, TaskKind
from web.hub.store import now, open_store

LOST = (OSError, http.client.HTTPException)
"""What a box sees of a hub that is killed."""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    """A PostgreSQL."""
    with postgresql() as started:
        yield started


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
def database(request: pytest.FixtureRequest) -> str:
    """The connection string of an empty PostgreSQL; nothing for the hub's own file."""
    return "" if request.param == "sqlite" else request.getfixturevalue("server").database()


def test_killed_at_every_durable_step_while_a_box_sends(tmp_path: Path, database: str) -> None:
    """Two events and a picture; before or after each fsync, rename and commit the hub dies, and the box simply goes on."""
    served, only = Served(tmp_path, database), ["postgresql"] if database else []
    with served:
        box = Courier(over(served.connect()))
        assert box.enrol(served.code())[0] == 200
        enrolled = box.keys, box.hub
    have, step, upto, finished = 0, 0, 0, False
    while not finished:
        step += 1
        served.start(("before", "after")[step % 2], str(step), *only)
        if served.process is not None and served.process.poll() is not None:
            continue  # it died before it could be reached
        try:
            box = Courier(over(served.connect()))
            box.keys, box.hub = enrolled
            said = box.tell(result(step), image(step, DATA, SHA), first=2 * step - 1, objects=(SHA,))
            assert said.had[EPOCH].upto >= upto, "what was acknowledged is gone"
            assert said.objects[SHA] >= have, "bytes that were acknowledged are gone"
            upto, have = said.had[EPOCH].upto, said.objects[SHA]
            piece = DATA[have : have + len(DATA) // 8]
            status, have = box.patch(piece, have)
            assert status == 204
            finished = have == len(DATA)
        except LOST:
            pass
        served.stop(signal.SIGKILL)
        assert step < 100, "it never got through"
    with closing(open_store(served.settings)) as store, store.reading(PROGRAMME) as db:
        had = inbox.had(db, SITE.name)[EPOCH]
        rows = db.rows("SELECT case_uid FROM film WHERE programme = :programme")
        waiting = db.rows("SELECT film FROM task WHERE programme = :programme")
    known = {*range(1, had.upto + 1)} | {seq for first, last in had.beyond for seq in range(first, last + 1)}
    assert len(rows) == len(waiting) == sum(seq % 2 for seq in known)
    with opened(served.settings) as hub:
        assert hub.blobs.read(f"{PROGRAMME}/{SHA}", 0, 10**6) == DATA


def test_the_power_goes_at_any_durable_step_while_a_picture_comes(tmp_path: Path) -> None:
    """Whatever the disk shows then, the bytes that the database speaks of are there, and it speaks of all that was acknowledged."""
    root, after, acknowledged, seen = tmp_path / "hub", tmp_path / "after", 0, 0
    root.mkdir()
    data = DATA[:20_000]
    sha256 = hashlib.sha256(data).hexdigest()

    def look(copy: Path, when: str) -> None:
        nonlocal seen
        seen += 1
        with closing(open_store(Config(state=str(copy)))) as store, store.reading(PROGRAMME) as db:
            found = films.size(db, SITE.name, sha256)
        assert found is not None and acknowledged <= found[1], when
        assert Files(copy / "objects").read(f"{PROGRAMME}/{sha256}", 0, found[1]) == data[: found[1]], when

    with (disk := Disk(root)).installed(), opened(settings(root)) as hub:
        Sender(hub).send(image(1, data, sha256), at=now())
        public = hub.keys.public
        with hub.store.transaction() as db:
            sites.enrol(db, sites.invite(db, PROGRAMME, SITE.name, now()), PROGRAMME, SITE.name, public, now())
            device = sites.device(db, public.fingerprint)
        assert device is not None
        cuts(disk, after, look)
        while acknowledged < len(data):
            coming = io.BytesIO(data[acknowledged : acknowledged + 7000])
            took, acknowledged = objects.append(hub, device, sha256, acknowledged, None, coming.read)
            assert took is Took.KEPT
    assert seen > 4 * len(WORST)


WORK = """
import sys
from pathlib import Path
from web.hub import config, here, tasks
from web.hub.records import Finding, Reader, TaskKind
from web.hub.store import now
from edge.records import Outcome
held = here.open_hub(config.load(Path(sys.argv[1])))
reader = Reader(programme="lakes", name=sys.argv[2], kinds=frozenset(TaskKind))
print("ready", flush=True)
for _ in range(int(sys.argv[4])):
    with held.store.transaction("lakes") as db:
        task = tasks.claim(db, reader, float(sys.argv[3]), now())
    if task is None:
        continue
    with held.store.transaction("lakes") as db:
        tasks.finish(db, reader, "Dr", task.id, Finding(outcome=Outcome.ROUTINE, codes=("normal",)), "k", held.rules, now())
"""


def toml(folder: Path, database: str) -> Path:
    """The settings of a hub below a folder, for its workers."""
    file = folder / "hub.toml"
    file.write_text(
        f'state = "{folder / "hub"}"\n[policy]\nsecond_share = 0.0\n[database]\npostgresql = "{database}"\n'
    )
    return file


def read_once(hub: Hub, number: int) -> None:
    """Each of so many films was read once, and its clinic is told once."""
    with hub.store.reading(PROGRAMME) as db:
        reads = db.rows("SELECT film FROM review WHERE programme = :programme")
        told = db.rows("SELECT seq FROM answer WHERE programme = :programme ORDER BY seq")
    assert Counter(Counter(row["film"] for row in reads).values()) == {1: number}
    assert [row["seq"] for row in told] == list(range(1, number + 1))


@pytest.mark.peer
def test_a_worker_killed_at_each_commit_loses_no_lease_and_reads_no_film_twice(
    tmp_path: Path, server: Postgresql
) -> None:
    """A worker commits its start, a claim and a read: whoever comes back has the film that they had, and nobody else gets it."""
    number, lease = 4, 900.0
    one, other = (Reader(programme=PROGRAMME, name=name, kinds=frozenset(TaskKind)) for name in ("one", "other"))
    script = tmp_path / "work.py"
    script.write_text(WORK)
    where = server.database()
    work = [str(script), str(toml(tmp_path, where)), "one", str(lease)]

    def run(*program: str) -> int:
        ended = subprocess.run(
            [sys.executable, *program], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
        )
        return ended.returncode

    with opened(settings(tmp_path / "hub", database=Database(postgresql=where))) as hub:
        Sender(hub).send(*map(result, range(1, number + 1)), at=now())
        had, killer = None, str(ROOT / "tests/fault/killer.py")
        for when, step, reads, holds in (
            ("before", "2", 0, False),
            ("after", "2", 0, True),
            ("before", "3", 0, True),
            ("after", "3", 1, False),
            ("after", "2", 1, True),
        ):
            assert run(killer, when, step, "postgresql", "--", *work, "1") == -signal.SIGKILL
            with hub.store.transaction(PROGRAMME) as db:
                assert len(tasks.of_reader(db, one, number)) == reads, (when, step)
                held, theirs = tasks.holds(db, one, now()), tasks.claim(db, other, lease, now())
                assert theirs is not None and tasks.release(db, other, theirs.id)
            assert (held is not None) == holds, (when, step)
            if held is not None:
                assert theirs.id != held.id, "two have the same film"
                assert had in (None, held.id), "who comes back has another film"
            had = held.id if held else None
        with hub.store.transaction(PROGRAMME) as db:  # they never came back
            late = tasks.claim(db, other, lease, now() + lease + 1)
        assert late is not None and late.id == had
        with hub.store.transaction(PROGRAMME) as db:
            assert tasks.release(db, other, late.id)
        assert run(*work, str(number - 1)) == 0
        read_once(hub, number)


def test_workers_killed_at_random_lose_no_film_and_read_none_twice(tmp_path: Path, database: str) -> None:
    number = 60
    file = toml(tmp_path, database)
    with opened(settings(tmp_path / "hub", database=Database(postgresql=database))) as hub:
        box = Sender(hub)
        box.send(*map(result, range(1, number + 1)), at=now())

        def left() -> int:
            with hub.store.reading(PROGRAMME) as db:
                row = db.row("SELECT COUNT(*) AS n FROM task WHERE programme = :programme AND done_at IS NULL")
            return int(row["n"]) if row else 0

        end, turn = time.monotonic() + PATIENCE, 0
        while left():
            assert time.monotonic() < end, f"{left()} films are left"
            turn += 1
            workers = [
                subprocess.Popen(
                    [sys.executable, "-c", WORK, str(file), f"reader {turn} {who}", "0.5", str(sys.maxsize)],
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                )
                for who in range(2)
            ]
            for worker in workers:
                assert worker.stdout is not None
                worker.stdout.readline()
            few = max(0, left() - number // 3)
            while left() > few and time.monotonic() < end:
                time.sleep(0.001)
            for worker in workers:  # wherever they are
                worker.kill()
                worker.communicate()
        read_once(hub, number)
