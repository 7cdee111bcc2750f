"""Sources: sets as they are published become folders that the model can learn from, and what is wrong with them is listed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge import samples
from models import phantom
from models.training import films
from tests.box import ROOT


def picture(path: Path, number: int, size: tuple[int, int] = (400, 330)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(phantom.chest(number, size) * 255).astype(np.uint8)).save(path)


def table(path: Path, *rows: dict[str, str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        written = csv.DictWriter(file, list(rows[0]))
        written.writeheader()
        written.writerows(rows)


def chestxray14(folder: Path) -> None:
    rows = [("00000001_000.png", "Cardiomegaly|Effusion", "57", "PA"), ("00000002_000.png", "No Finding", "081Y", "AP")]
    for number, (name, *_) in enumerate(rows):
        picture(folder / f"images_00{number + 1}/images/{name}", number)
    columns = "Image Index", "Finding Labels", "Patient Age", "View Position"
    made = (dict(zip(columns, row, strict=True)) for row in rows)
    table(
        folder / "Data_Entry_2017_v2020.csv",
        *({"Patient ID": row["Image Index"][:8], "Patient Gender": "M"} | row for row in made),
    )


def rsna(folder: Path) -> None:
    (folder / "stage_2_train_images").mkdir(parents=True)
    for number, name in enumerate("abc"):
        film = samples.film(phantom.chest(10 + number, (400, 330)), f"{name}^Nobody", "051Y", "F")
        film.save_as(folder / f"stage_2_train_images/{name}.dcm", enforce_file_format=True)
    classes = {"a": "Lung Opacity", "b": "Normal", "c": "No Lung Opacity / Not Normal"}
    rows = [{"patientId": name, "class": said} for name, said in classes.items()]
    table(folder / "stage_2_detailed_class_info.csv", rows[0], *rows)  # a row for each box of a film
    mapping = [{"subset_img_id": "a", "img_id": "00000003_004.png"}]
    (folder / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping))


def pediatric(folder: Path) -> None:
    picture(folder / "chest_xray/train/NORMAL/IM-0115-0001.jpeg", 20)
    picture(folder / "chest_xray/test/PNEUMONIA/person1_virus_6.jpeg", 21)


def chexpert(folder: Path) -> None:
    findings = dict.fromkeys(("No Finding", "Lung Opacity", "Edema", "Fracture"), "")
    rows = {
        "train/patient00001/study1/view1_frontal.jpg": {"Edema": "1.0", "Fracture": "-1.0"},
        "train/patient00002/study1/view1_frontal.jpg": {"Edema": "-1.0"},
        "train/patient00003/study1/view2_lateral.jpg": {"No Finding": "1.0"},
        "valid/patient64541/study1/view1_frontal.jpg": {"No Finding": "1.0"},
    }
    for split in ("train", "valid"):
        made = []
        for number, (name, said) in enumerate(rows.items()):
            if name.startswith(split):
                frontal = "Frontal" if "frontal" in name else "Lateral"
                if frontal == "Frontal":
                    picture(folder / name, 30 + number)
                about = {
                    "Path": f"CheXpert-v1.0-small/{name}",
                    "Sex": "Female",
                    "Age": "68",
                    "Frontal/Lateral": frontal,
                }
                made.append(about | {"AP/PA": "AP" if frontal == "Frontal" else ""} | findings | said)
        table(folder / f"{split}.csv", *made)


def mimic(folder: Path) -> None:
    picture(folder / "files/p10/p10000032/s50414267/one.jpg", 40)
    who = {"subject_id": "10000032", "study_id": "50414267"}
    views = [{"dicom_id": "one", "ViewPosition": "PA"}, {"dicom_id": "two", "ViewPosition": "LATERAL"}]
    table(folder / "mimic-cxr-2.0.0-metadata.csv", *(view | who for view in views))
    table(folder / "mimic-cxr-2.0.0-chexpert.csv", who | {"No Finding": "", "Pneumonia": "1.0", "Edema": "0.0"})


def made(folder: Path, to: Path, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "build/sources", folder, to], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


SETS = {one.__name__: one for one in (chestxray14, rsna, pediatric, chexpert, mimic)}


def test_sets_as_they_are_published_become_one_list_of_films(tmp_path: Path) -> None:
    for name, make in SETS.items():
        make(tmp_path / "published" / name)
        assert f"{name}: " in made(tmp_path / "published" / name, tmp_path / "data")
    (tmp_path / "work").mkdir()
    films.ingest(tmp_path / "data", tmp_path / "work")
    every, pictures = films.load(tmp_path / "work")
    assert pictures.shape == (len(every), 224, 224)
    known = ("source", "patient", "domain", "view", "label", "mined", "shadow", "age")
    assert [tuple(getattr(film, name) for name in known) for film in every] == [
        ("chestxray14", "NIH00001", "adult", "PA", None, 1, 1, 57.0),
        ("chestxray14", "NIH00002", "adult", "AP", None, 0, 0, 81.0),
        ("chexpert", "CheXpert patient00001", "adult", "AP", None, 1, 1, 68.0),
        ("chexpert", "CheXpert patient00002", "adult", "AP", None, None, None, 68.0),
        ("chexpert", "CheXpert patient64541", "adult", "AP", 0, None, None, 68.0),
        ("mimic", "MIMIC 10000032", "other", "PA", None, 1, 1, None),
        ("pediatric", "Guangzhou test person1", "child", "AP", 1, None, None, 3.0),
        ("pediatric", "Guangzhou train IM-0115", "child", "AP", 0, None, None, 3.0),
        ("rsna", "NIH00003", "adult", "PA", 1, None, None, 51.0),
        ("rsna", "RSNA b", "adult", "PA", 0, None, None, 51.0),
        ("rsna", "RSNA c", "adult", "PA", None, None, None, 51.0),
    ]
    terms = json.loads((tmp_path / "work/terms.json").read_text())
    assert terms["pediatric"] == ["Kermany et al. 2018, Guangzhou", "CC BY 4.0"]


@pytest.mark.parametrize("name", SETS)
def test_a_film_that_is_missing_or_none_is_listed_and_nothing_is_made_of_the_rest(tmp_path: Path, name: str) -> None:
    SETS[name](tmp_path / "set")
    found = sorted(path for path in (tmp_path / "set").rglob("*") if path.suffix in (".png", ".dcm", ".jpeg", ".jpg"))
    found[0].write_bytes(b"no film")
    if name != "pediatric":  # whose films are all that is known of it
        found[-1].unlink()
    said = made(tmp_path / "set", tmp_path / "data", status=1)
    for path in {found[0], *(found[-1:] if name != "pediatric" else ())}:
        assert path.name in said
    assert not (tmp_path / "data" / name / "labels.csv").exists()


def test_a_folder_that_is_no_set_is_said(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert "is none of the sets" in made(tmp_path / "set", tmp_path / "data", status=1)


ROW = {"source": "Us", "licence": "ours", "patient_id": "1", "age": "40", "sex": "F", "view": "PA", "label": "1"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": "maybe"}, "plain/labels.csv, line 2: label is 'maybe'"),
        ({"view": "LL"}, "plain/labels.csv, line 2: view is 'LL'"),
        ({"split": "test"}, "plain/labels.csv, line 2: split is 'test'"),
        ({"age": "old"}, "plain/labels.csv, line 2: could not convert"),
        ({"patient_id": ""}, "plain/labels.csv, line 2: patient_id is empty"),
        ({"file": "none.png"}, "plain/none.png is missing"),
        ({"file": "labels.csv"}, "plain/labels.csv is no picture"),
        ({"patient_id": "2", "split": "val"}, "plain/b.png: patient 2 is in train and val"),
        ({"age": "3", "label": ""}, "no film of an adult that somebody has read"),
    ],
)
def test_what_cannot_be_learnt_from_is_listed(tmp_path: Path, change: dict[str, str], says: str) -> None:
    data, work = tmp_path / "data", tmp_path / "work"
    work.mkdir()
    for number, name in enumerate("ab"):
        picture(data / f"plain/{name}.png", number)
    child = ROW | {"file": "b.png", "patient_id": "2", "age": "3", "label": "0", "split": "train"}
    table(data / "plain/labels.csv", ROW | {"file": "a.png", "split": "train"} | change, child)
    with pytest.raises(ValueError, match=r"plain|no film") as caught:
        films.ingest(data, work)
    assert says in str(caught.value)
    assert not (work / "films.json").exists()


def test_the_same_picture_twice_is_one_film_and_a_patient_is_drawn_into_one_split(tmp_path: Path) -> None:
    data, work = tmp_path / "data", tmp_path / "work"
    work.mkdir()
    ages = {"a": "40", "b": "3", "c": "40"}
    for name in ages:
        picture(data / f"plain/{name}.png", 1 if name == "c" else ord(name) - ord("a") + 1)
    table(
        data / "plain/labels.csv",
        *(ROW | {"file": f"{name}.png", "patient_id": name, "age": age} for name, age in ages.items()),
    )
    films.ingest(data, work)
    assert [film.file for film in films.load(work)[0]] == ["a.png", "b.png"]
    shares = [films.drawn(str(number)) == "val" for number in range(2000)]
    assert 0.17 < np.mean(shares) < 0.23
