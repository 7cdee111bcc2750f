"""The offline kit for a clinic's own Debian computer: every Python package, hashed and signed, and the program that installs it.

`build/kit` makes it where there is a network; it is carried on a stick. Debian's Python and openssl are all that it needs there.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
from pathlib import Path

from firmware import install, signature
from firmware.image import PYTHON, ROOT, _key, _run, _version
from firmware.signature import SecretKey


def build(out: Path, key: SecretKey, machine: str, python: str) -> Path:
    """Fetch what the lock file names, make the project's own wheel, and put the kit together; its folder."""
    folder = out / f"outpost-kit-{_version()}-{machine}-python{python}"
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    lock = ROOT / "build/locks/box.txt"
    tags = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(36, 16, -1)]
    where = ["--only-binary=:all:", "--no-deps", f"--dest={wheels}"]
    _run(
        *pip, "download", "--require-hashes", "--implementation=cp", f"--python-version={python}", *tags,
        f"--platform=manylinux2014_{machine}", *where, "-r", str(lock),
    )  # fmt: skip
    _run(*pip, "download", *where, "pip")
    _run(*pip, "wheel", "--no-deps", f"--wheel-dir={wheels}", str(ROOT))
    assemble(folder, key, _version(), python, machine)
    return folder


def assemble(folder: Path, key: SecretKey, version: str, python: str, machine: str) -> None:
    """Make a kit of a folder with `wheels/`: what is installed, the installer, the hashes of all, and their signature."""
    lines = []
    for wheel in sorted((folder / "wheels").glob("*.whl")):
        name, number, *_ = wheel.name.split("-")
        if name != "pip":
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            lines.append(f"{re.sub('[-_.]+', '-', name).lower()}=={number} --hash=sha256:{digest}")
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(Path(install.__file__), folder / "install")
    (folder / "install").chmod(0o755)
    (folder / install.KEY).write_text(signature.write_public(key.public), encoding="utf-8")
    held = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in (install.SUMS, install.SIGNED)
    )
    sums = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n" for path in held
    )
    (folder / install.SUMS).write_text(sums, encoding="utf-8")
    told = f"outpost-kit {version} {python} {machine}"
    (folder / install.SIGNED).write_text(signature.sign(sums.encode(), key, told), encoding="utf-8")


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(prog="build/kit", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the kit")
    parser.add_argument("--machine", choices=["x86_64", "aarch64"], default="x86_64")
    parser.add_argument("--python", default=PYTHON, help="of the clinic's Debian: 3.11 in Debian 12, 3.13 in Debian 13")
    parser.add_argument("--key", type=Path, help="private key (Ed25519, PEM) that signs; else one for this kit alone")
    told = parser.parse_args()
    print(build(told.out, _key(told.key), told.machine, told.python))  # noqa: T201


if __name__ == "__main__":
    main()
