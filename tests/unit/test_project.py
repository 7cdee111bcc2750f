"""The project itself: what is shipped, under which licences, and that what is written down is current."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from edge import config, errors, words
from edge.cli import COMMANDS, main
from edge.records import Concern, Outcome, Reason
from models.bundle import SHIPPED

ROOT = Path(__file__).resolve().parents[2]

FORBIDDEN = re.compile(
    r"\b(A?GPL|GNU (AFFERO )?GENERAL PUBLIC|BUSL|BSL-1\.1|BUSINESS SOURCE|SSPL|COMMONS CLAUSE)", re.IGNORECASE
)
"""The LGPL is another licence: it does not match."""


def tracked() -> list[Path]:
    """The files that are in git, or shall be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def test_the_wheel_has_what_the_box_runs_on(wheel: list[str]) -> None:
    wanted = {
        path.relative_to(ROOT).as_posix()
        for top in ("edge", "models", "web", "firmware")
        for path in tracked()
        if path.is_relative_to(ROOT / top) and not path.is_relative_to(ROOT / "models/training")
    }
    assert wanted <= set(wheel)
    bundle = SHIPPED.relative_to(ROOT).as_posix()
    for name in (f"{bundle}/model.onnx", f"{bundle}/manifest.toml", f"{bundle}/gate.npz", f"{bundle}/card.md"):
        assert name in wheel
    assert "web/templates/worklist.html" in wheel
    assert "web/static/style.css" in wheel


def test_the_wheel_has_nothing_else(wheel: list[str]) -> None:
    assert {name.split("/")[0] for name in wheel} == {
        "edge", "models", "web", "firmware", "outpost_cxr-0.1.0.dist-info",
    }  # fmt: skip
    assert not [name for name in wheel if name.startswith("models/training") or "__pycache__" in name]
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage:")


def test_every_command_is_in_the_help_of_the_whole() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    assert [name for name in COMMANDS if not re.search(rf"^  {name} ", output, re.MULTILINE)] == []


def test_the_command_line_imports_nothing_heavy() -> None:
    script = (
        "import sys, edge.cli\n"
        "print(*sorted({'numpy', 'PIL', 'pydicom', 'pynetdicom', 'onnxruntime', 'flask', 'torch'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.strip() == ""


def test_what_listens_on_the_network_cannot_look_at_pictures() -> None:
    script = "from edge.cli import main; import atexit, sys; atexit.register(lambda: print(*sys.modules)); main()"
    loaded = subprocess.run(
        [sys.executable, "-c", script, "serve", "--help"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "pydicom" in loaded
    assert not {"numpy.core", "numpy._core", "_gdcm", "openjpeg", "rle", "onnxruntime", "models.model"} & set(loaded)


def test_the_page_of_settings_is_current() -> None:
    assert (ROOT / "edge/configuration.md").read_text(encoding="utf-8") == config.reference()


def test_every_setting_has_its_help() -> None:
    rows = [line for line in config.reference().splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if not row.split("|")[3].strip()] == []


def test_every_reason_has_a_sentence_and_a_next_step() -> None:
    assert set(words.REASONS) == set(Reason)
    assert all(sentence.endswith(".") and step.endswith(".") for sentence, step in words.REASONS.values())
    assert set(words.OUTCOMES) == set(Outcome)
    assert set(words.CONCERNS) == set(Concern)
    assert all(sentence.endswith(".") and step.endswith(".") for sentence, step in words.CONCERNS.values())


def test_every_error_has_a_key_and_an_exit_status_of_its_own() -> None:
    kinds = errors.OutpostError.__subclasses__()
    assert len(kinds) == 4
    assert len({kind.key for kind in kinds}) == len({kind.exit_status for kind in kinds}) == 4
    assert not {kind.exit_status for kind in kinds} & {0, 1, 2}  # success, a bug, wrong usage


MACHINE = re.compile(
    r"(?<![\w.~}/])/(?:home|Users|work|root|opt|mnt)/\w"  # folders of one machine or person; /usr, /var, /tmp are Debian's
)


def test_no_file_names_a_path_of_a_machine() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE.finditer(text)]
    assert found == []


def test_the_lock_files_name_no_registry_and_no_torch() -> None:
    for name in ("box", "demo", "test", "train"):
        text = (ROOT / f"build/locks/{name}.txt").read_text(encoding="utf-8")
        assert "://" not in text
        assert "--index" not in text
        assert not re.search(r"^(torch|nvidia-\S+|triton)==", text, re.MULTILINE)
        assert text.count("==") <= text.count("--hash=sha256:")


def locked(name: str) -> set[str]:
    text = (ROOT / f"build/locks/{name}.txt").read_text(encoding="utf-8")
    return set(re.findall(r"^[a-z][^ ]*==[^ ]+", text, re.MULTILINE))


def test_what_the_box_runs_on_is_what_was_tested() -> None:
    assert locked("box") < locked("demo") < locked("test")


@pytest.mark.parametrize("name", ["demo", "test", "train"])
def test_what_sets_up_a_fresh_machine_can_build_the_project(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = {Requirement(text).name for text in project["build-system"]["requires"]}
    assert wanted <= {package.partition("==")[0] for package in locked(name)}


def needed(name: str, seen: set[str]) -> Iterator[Distribution]:
    """A distribution and everything it needs here, each once."""
    if name in seen:
        return
    seen.add(name)
    found = distribution(name)
    yield found
    for text in found.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            try:
                yield from needed(requirement.name.lower().replace("_", "-"), seen)
            except PackageNotFoundError:
                pytest.fail(f"{requirement.name}, which {name} needs, is not installed: run build/test")


def licence(package: Distribution) -> str:
    """What a distribution says of its licence, by PEP 639, its classifiers, or the free text of old."""
    metadata = package.metadata
    classifiers = [line for line in metadata.get_all("Classifier") or () if line.startswith("License")]
    told = [metadata.get("License-Expression") or "", *classifiers]
    free = metadata.get("License") or ""
    return " ".join([*told, *free.splitlines()[:2]]).strip()


def test_the_box_needs_no_package_under_a_restrictive_licence() -> None:
    packages = list(needed("outpost-cxr", set()))
    assert len(packages) > len(locked("box")) // 2
    assert "pylibjpeg-libjpeg" not in {package.metadata["Name"] for package in packages}
    licences = {package.metadata["Name"]: licence(package) for package in packages}
    assert {name for name, text in licences.items() if FORBIDDEN.search(text)} == set()
    assert {name for name, text in licences.items() if not text} == set()


def test_every_folder_says_what_lives_in_it() -> None:
    missing = [
        name for name in ("", "edge", "models", "web", "firmware", "tests") if not (ROOT / name / "README.md").is_file()
    ]
    assert missing == []


def test_links_between_the_pages_lead_somewhere() -> None:
    broken = []
    for page in (path for path in tracked() if path.suffix == ".md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_build_holds_scripts_and_is_no_package() -> None:
    assert not (ROOT / "build/__init__.py").exists()
    assert not re.search(r"^/?build/?$", (ROOT / ".gitignore").read_text(encoding="utf-8"), re.MULTILINE)
    for script in (
        "build/run",
        "build/test",
        "build/setup",
        "build/lock",
        "build/image",
        "build/kit",
        "build/release-test",
        ".ci/run",
    ):
        assert os.access(ROOT / script, os.X_OK), script
        subprocess.run(["bash", "-n", ROOT / script], check=True)
