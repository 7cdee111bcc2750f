"""The offline kit: one command installs it where there is no network; damaged, forged or foreign, it changes nothing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pip
import pytest
from click.testing import CliRunner

from edge.cli import main
from edge.samples import film
from firmware import image as recipe
from firmware import kit
from firmware.signature import SecretKey
from models import phantom
from tests.conftest import peer

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
CPU = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""
PROGRAM = "import sys\nprint('outpost {version}', *sys.argv[1:])\nsys.exit({status})\n"


def wheel(folder: Path, version: str, status: int = 0) -> None:
    """A stand-in for the project: a package `edge` that says its version."""
    told = f"outpost_cxr-{version}.dist-info"
    with zipfile.ZipFile(folder / f"outpost_cxr-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr("edge/__init__.py", "")
        archive.writestr("edge/__main__.py", PROGRAM.format(version=version, status=status))
        archive.writestr(f"{told}/METADATA", f"Metadata-Version: 2.1\nName: outpost-cxr\nVersion: {version}\n")
        archive.writestr(f"{told}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{told}/RECORD", "")


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pip as a wheel."""
    path, top = tmp_path_factory.mktemp("pip") / f"pip-{pip.__version__}-py3-none-any.whl", Path(pip.__file__).parent
    with zipfile.PyZipFile(path, "w") as archive:  # compiled, else each run of it takes two seconds
        archive.writepy(str(top))
        for file in top.rglob("*"):
            if file.is_file() and file.suffix not in (".py", ".pyc"):
                archive.write(file, Path("pip") / file.relative_to(top))
    return path


class Stick:
    """A stick with a kit, and a computer to install it on."""

    def __init__(self, folder: Path, installer: Path) -> None:
        self.installer = installer
        self.folder, self.to, self.key = folder, folder / "opt", SecretKey.generate()
        self.alone = [peer("unshare", "util-linux"), "--map-root-user", "--net"]
        """What comes before a command that shall run without a network."""
        self.python = sys.executable

    def make(self, version: str, key: SecretKey | None = None, machine: str = "", status: int = 0) -> Path:
        made = self.folder / f"kit-{version}"
        (made / "wheels").mkdir(parents=True)
        wheel(made / "wheels", version, status)
        (made / "wheels" / self.installer.name).hardlink_to(self.installer)
        kit.assemble(made, key or self.key, version, HERE, machine or platform.machine())
        return made

    def install(self, made: Path, *more: str, given: str = "yes\n") -> subprocess.CompletedProcess[str]:
        """Run its one command in a namespace without a network."""
        done = subprocess.run(
            [*self.alone, self.python, made / "install", "--to", self.to, *more],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": os.defpath},
        )
        if "unshare" in done.stderr:
            pytest.skip(f"no namespaces here: {done.stderr}")
        return done

    def says(self) -> str:
        return subprocess.run([self.to / "current/bin/outpost", "x"], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def stick(tmp_path: Path, installer: Path) -> Stick:
    peer("openssl", "openssl")
    return Stick(tmp_path, installer)


def test_one_command_installs_and_updates_and_the_one_before_stays(stick: Stick) -> None:
    first = stick.install(stick.make("0.1.0"))
    assert first.returncode == 0, first.stderr
    assert str(stick.key.public) in first.stdout, "the person compares it"
    assert stick.says() == "outpost 0.1.0 x\n"
    second = stick.install(stick.make("0.2.0"), given="")  # the key is known from then on
    assert second.returncode == 0, second.stderr
    assert stick.says() == "outpost 0.2.0 x\n"
    assert (stick.to / "previous").resolve().name == "0.1.0"


def test_what_does_not_work_here_or_is_not_the_makers_changes_nothing(stick: Stick) -> None:
    assert stick.install(stick.make("0.1.0")).returncode == 0
    bad = stick.make("0.2.0", status=1)
    assert "does not work on this computer" in stick.install(bad).stderr
    forged = stick.make("0.3.0", SecretKey.generate())
    assert "signed by somebody else" in stick.install(forged).stderr
    shutil.copy(bad / "outpost.pub", forged / "outpost.pub")
    assert "the signature does not fit" in stick.install(forged).stderr
    foreign = stick.make("0.4.0", machine="riscv64")
    assert "is for Python" in stick.install(foreign).stderr
    changed = stick.make("0.5.0")
    (file,) = (changed / "wheels").glob("outpost_cxr-*")
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert f"wheels/{file.name} is missing or damaged" in stick.install(changed).stderr
    (changed / "SHA256SUMS").write_text((changed / "SHA256SUMS").read_text().replace("a", "b"))
    assert "the signature does not fit" in stick.install(changed).stderr
    assert stick.says() == "outpost 0.1.0 x\n"
    assert sorted(path.name for path in stick.to.iterdir() if not path.name.endswith(".new")) == [
        "0.1.0", "current", "outpost.pub",
    ]  # fmt: skip


def test_an_unconfirmed_key_installs_nothing(stick: Stick) -> None:
    made = stick.make("0.1.0")
    assert "not confirmed" in stick.install(made, given="no\n").stderr
    assert "somebody else than you named" in stick.install(made, "--key", "RWQother").stderr
    assert not stick.to.exists()
    assert stick.install(made, "--key", str(stick.key.public), given="").returncode == 0


@pytest.mark.release
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_real_kit_assesses_a_film_without_a_network(machine: str, tmp_path: Path, installer: Path) -> None:
    stick = Stick(tmp_path, installer)
    made = kit.build(tmp_path, stick.key, machine, HERE)
    if machine != platform.machine():
        assert len(list((made / "wheels").glob("*.whl"))) > 35
        assert "is for Python" in stick.install(made).stderr
        if os.geteuid():
            pytest.skip("as root only")
        stick.alone, stick.python = another(tmp_path / "root", tmp_path), "/usr/bin/python3"
    done = stick.install(made)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "film.dcm"
    film(phantom.chest(1), "Mwansa^Ruth", "050Y", "F").save_as(path, enforce_file_format=True)
    command = [*stick.alone, stick.to / "current/bin/outpost", "triage", path, "--json"]
    there = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout)
    here = json.loads(CliRunner().invoke(main, ["triage", str(path), "--json"]).stdout)
    assert there["outcome"] == here["outcome"] != "could_not_assess"
    found = [[one["probability"] for one in told["findings"]] for told in (there, here)]
    assert found[0] == pytest.approx(found[1], abs=0.005)


def another(root: Path, shared: Path) -> list[str]:
    """What comes before a command that shall run on an emulated ARM computer without a network; it sees a folder of this one."""
    board = msgspec.toml.decode((recipe.HERE / "boards/arm64.toml").read_bytes(), type=recipe.Board)
    cache = Path(os.environ.get("OUTPOST_IMAGE_CACHE", Path.home() / ".cache/outpost"))
    root.mkdir()
    subprocess.run(["tar", "--extract", "--file", recipe.debian(board, cache), "--directory", root], check=True)
    # the emulator shows this computer's processor; ONNX Runtime looks for an ARM one and falls over without it
    cpu = root / "sys/devices/system/cpu"
    (cpu / "cpu0/regs/identification").mkdir(parents=True)
    (cpu / "cpu0/regs/identification/midr_el1").write_text("0x00000000410fd083\n")
    for name in ("possible", "present", "online"):
        (cpu / name).write_text("0\n")
    (root / "cpuinfo").write_text(CPU)
    inside = """root=$1; shared=$2; shift 2
        mkdir -p "$root$shared"
        mount --bind "$shared" "$root$shared"
        mount -t proc none "$root/proc"
        mount --bind "$root/cpuinfo" "$root/proc/cpuinfo"
        exec unshare --root="$root" "$@"
    """
    return [peer("unshare", "util-linux"), "--net", "--mount", "sh", "-euc", inside, "sh", str(root), str(shared)]
