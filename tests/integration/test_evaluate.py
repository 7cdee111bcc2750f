"""`outpost models evaluate`: figures of films that somebody has read, and a list of what is wrong with a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edge import cluster, evaluation
from edge.cli import main
from edge.errors import Transient, Unreadable
from edge.reader import Reader
from edge.samples import film
from models import phantom
from models.bundle import SHIPPED, load
from tests.box import ROOT
from tests.conftest import CI

HEAD = "file,lung_opacity,pneumonia,patient,age,sex,view,source"


def films(folder: Path) -> Path:
    """A folder of eight adults and two children in three formats; one cannot be assessed, one not be read."""
    folder.mkdir()
    lines = [HEAD]
    for number in range(8):
        gray = phantom.chest(number, (256, 256), opacity=number % 2 == 1)
        if number < 4:
            Image.fromarray((gray * 255).astype(np.uint8)).save(folder / f"{number}.png")
        elif number < 6:
            Image.fromarray((gray * 65535).astype(np.uint16)).save(folder / f"{number}.png")
        else:
            film(gray, "Test^One", "050Y", "F").save_as(folder / f"{number}.dcm", enforce_file_format=True)
        ours = f"p{number // 2},44,m,PA,clinic" if number < 6 else ",,,,"
        lines.append(f"{number}.{'png' if number < 6 else 'dcm'},{number % 2},,{ours}")
    Image.fromarray((phantom.chest(9, (256, 256)) * 255).astype(np.uint8)).save(folder / "child.jpg")
    Image.fromarray(255 - (phantom.chest(8, (256, 256)) * 255).astype(np.uint8)).save(folder / "inverted.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    lines += ["child.jpg,1,0,c,3,F,AP,ward", "inverted.jpg,1,,d,60,F,AP,ward", "broken.jpg,1,,e,60,F,AP,ward"]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def evaluate(data: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["models", "evaluate", str(SHIPPED), "--data", str(data), *more])


def test_figures_for_people_and_for_machines(tmp_path: Path) -> None:
    data = films(tmp_path / "films")
    done = evaluate(data, "--json", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == json.loads((tmp_path / "out/evaluation.json").read_text(encoding="utf-8"))
    assert told["films"] == 11
    assert told["could_not_assess"] == {"damaged": 1, "wrong_polarity": 1}
    assert [one["file"] for one in told["unreadable"]] == ["broken.jpg"]
    assert "line 12: broken.jpg" in done.stderr
    opacity = told["findings"]["lung_opacity"]
    whole = opacity["groups"]["all"]
    assert (whole["films"], whole["with"], whole["without"]) == (11, 4, 4)
    assert whole["not_looked_for_at_that_age"] == 1  # the child
    assert set(opacity["groups"]) == {
        "all", "age 0-5", "age 40-65", "sex F", "sex M", "view PA", "view AP", "source clinic", "source ward",
    }  # fmt: skip
    assert opacity["groups"]["sex F"]["films"] == 5  # of the two DICOM films their own headers say it
    assert 0 <= whole["auroc"]["low"] <= whole["auroc"]["value"] <= whole["auroc"]["high"] <= 1
    for levels in whole["operating_points"].values():
        for level in levels.values():
            assert 0 <= level["sensitivity"]["low"] <= level["sensitivity"]["value"] <= 1
    page = (tmp_path / "out/evaluation.html").read_text(encoding="utf-8")
    plots = [ET.fromstring(part + "</svg>") for part in page.replace("<svg", "\0<svg").split("\0")[1:]
             for part in [part.split("</svg>")[0]]]  # fmt: skip
    assert len(plots) == 6
    assert "http" not in page and "<script" not in page
    assert evaluate(data, "--json").stdout == done.stdout


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler on the loopback and two workers of one thread, each a process of its own."""
    if find_spec("distributed") is None:
        pytest.fail("needs distributed") if CI else pytest.skip("needs distributed")
    (tmp_path / "dask").mkdir()
    told = tmp_path / "scheduler.json"
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str, *more: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--host", "127.0.0.1", "--no-dashboard", *more]
        with (tmp_path / f"{len(started)}.log").open("wb") as log:
            env = os.environ | {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
            where = {"cwd": tmp_path / "dask", "env": env}
            started.append(subprocess.Popen(command, stdout=log, stderr=log, **where))  # type: ignore[call-overload]

    try:
        start("scheduler", "--port", "0", "--scheduler-file", str(told))
        for _ in range(2):
            start("worker", "--scheduler-file", str(told), "--no-nanny", "--nthreads", "1")
        while not told.exists():
            assert started[0].poll() is None, (tmp_path / "0.log").read_text()
            time.sleep(0.05)
        address = json.loads(told.read_text())["address"]
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2)
        yield address, started[1:]
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def test_a_cluster_gives_the_same_bytes_and_says_what_is_wrong_with_it(
    tmp_path: Path, workers: tuple[str, list[subprocess.Popen[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, (first, second) = workers
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 120.0)
    data = films(tmp_path / "films")
    rows = [line.split(",") for line in (data / "labels.csv").read_text(encoding="utf-8").splitlines()]
    few = "\n".join(f"{row[0]},{row[1]},{row[4]}" for row in rows)  # groups and another finding would only take longer
    (data / "labels.csv").write_text(few + "\n", encoding="utf-8")
    alone, together = evaluate(data, "--json"), evaluate(data, "--json", "--scheduler", address)
    assert together.exit_code == 0, together.output
    assert together.stdout == alone.stdout

    here = cluster.versions()
    with monkeypatch.context() as other:
        other.setattr(cluster, "versions", lambda: (*here[:-1], "pydicom 1.0"))
        done = evaluate(data, "--scheduler", address)
    assert done.exit_code == 78 and done.stderr.count("it has pydicom ") == 2, done.stderr

    monkeypatch.setattr(cluster, "AT_ONCE", 3)
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.5)
    cases, _, _ = evaluation.parse(data / "labels.csv", ["lung_opacity"])
    said: list[str] = []

    judged = cluster.judge(address, data, load(SHIPPED), 1, cases, said.append)
    found = [next(judged)]
    first.kill()
    first.wait()
    found += judged
    assert sorted(number for number, _ in found) == list(range(len(cases)))
    assert len(said) == 1 and "was lost" in said[0]

    judged = cluster.judge(address, data, load(SHIPPED), 1, cases, said.append)
    next(judged)
    second.kill()
    second.wait()
    with pytest.raises(Transient, match="no worker is left"):
        list(judged)
    done = evaluate(data, "--scheduler", address)
    assert done.exit_code == 78 and "has no worker" in done.stderr
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.5)
    done = evaluate(data, "--scheduler", "tcp://127.0.0.1:1")
    assert done.exit_code == 78 and "no Dask scheduler answers" in done.stderr


def test_a_film_that_ends_one_worker_after_another_is_named(
    tmp_path: Path, workers: tuple[str, list[subprocess.Popen[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, both = workers
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 120.0)

    def fatal(_task: cluster.Task, _case: evaluation.Case) -> None:  # goes to the workers as it stands here
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(cluster, "_one", fatal)
    case = evaluation.Case(2, "fatal.png", {}, "p", 50.0, "", "", "")
    with pytest.raises(Unreadable, match=r"line 2: fatal\.png ends one worker after another"):
        list(cluster.judge(address, tmp_path, load(SHIPPED), 1, [case], pytest.fail))
    assert [one.wait() for one in both] == [-signal.SIGKILL] * 2


def test_a_picture_is_judged_as_its_dicom_twin(tmp_path: Path) -> None:
    bundle = load(SHIPPED)
    reader = Reader(bundle, bundle.manifest.default_operating_point, 1)
    gray = np.rint(phantom.chest(3, (300, 280), opacity=True) * 255) / np.float32(255)
    Image.fromarray((gray * 255).astype(np.uint8)).save(tmp_path / "a.png")
    film(gray.astype(np.float32), "", "", "").save_as(tmp_path / "a.dcm", enforce_file_format=True)
    said = [
        evaluation.judge(tmp_path, evaluation.Case(2, name, {}, "p", 50.0, "", "", ""), reader).probability(
            "lung_opacity"
        )
        for name in ("a.png", "a.dcm")
    ]
    assert said[0] is not None and said[0] == pytest.approx(said[1], abs=0.02)


def test_everything_that_is_wrong_is_listed_and_nothing_evaluated(tmp_path: Path) -> None:
    data = films(tmp_path / "films")
    (data / "again.png").write_bytes((data / "0.png").read_bytes())
    wrong = [
        "missing.png,1,,p,40,F,PA,x",
        "../films/0.png,1,,p,40,F,PA,x",
        "../elsewhere.png,1,,p,40,F,PA,x",
        "again.png,1,,q,40,F,PA,x",
        "1.png,yes,,p,40,F,PA,x",
        "1.png,1,,p,forty,F,PA,x",
        "1.png,1,,p,40,X,PA,x",
        ",1,,p,40,F,PA,x",
    ]
    with (data / "labels.csv").open("a", encoding="utf-8") as table:
        table.write("\n".join(wrong) + "\n")
    (tmp_path / "elsewhere.png").touch()
    done = evaluate(data)
    assert done.exit_code == 65
    for said in (
        "line 13: missing.png is missing", "line 14: ../films/0.png is the same film as line 2",
        "line 15: ../elsewhere.png lies outside",
        "line 16: again.png is the same film as line 2, 0.png", "line 17: lung_opacity is 'yes'", "line 18: age 'forty'",
        "line 19: sex 'X'", "line 20: no file",
    ):  # fmt: skip
        assert said in done.stderr, said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a column `file` is needed"),
        ("file,nodule\n0.png,1\n", "one of pneumonia, lung_opacity"),
        (HEAD + "\n", "names no film"),
        (HEAD + '\n"0.png,1', "line 2"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    done = evaluate(tmp_path)
    assert done.exit_code == 65
    assert said in done.stderr


def test_a_folder_without_a_table(tmp_path: Path) -> None:
    done = evaluate(tmp_path)
    assert done.exit_code == 65 and "there are: none" in done.stderr


def test_columns_that_are_not_looked_at_are_named(tmp_path: Path) -> None:
    Image.fromarray((phantom.chest(1, (256, 256)) * 255).astype(np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "table.csv").write_text("file,lung_opacity,nodule,age\na.png,0,1,50\n", encoding="utf-8")
    done = evaluate(tmp_path)
    assert done.exit_code == 0
    assert "not looked at: nodule" in done.stderr
