#!/usr/bin/env python3
"""Installs Outpost on a clinic's own Debian computer from the stick that this lies on: nothing but Python and openssl is needed.

    sudo python3 /media/stick/outpost-kit/install

Nothing is asked of any network. Signature and hashes are checked before anything is used; the new version is put beside the one
that runs, tries the model on this very computer, and only then takes its place; the one before stays, as `previous`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KIT = Path(__file__).resolve().parent
TO = Path("/usr/local/lib/outpost")
SUMS, SIGNED, KEY = "SHA256SUMS", "SHA256SUMS.minisig", "outpost.pub"
SPKI = bytes.fromhex("302a300506032b6570032100")
"""What stands before an Ed25519 key (RFC 8410)."""
UNIT = """[Unit]
Description=Outpost
After=network.target

[Service]
User=outpost
StateDirectory=outpost
StateDirectoryMode=0700
ExecStart={to}/current/bin/outpost serve
Restart=always
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
"""
PROGRAM = """#!/bin/sh
here=$(dirname "$(dirname "$(readlink -f "$0")")")
PYTHONPATH=$here/lib exec {python} -P -m edge "$@"
"""


class Refused(Exception):
    """Why nothing was installed, in words."""


def main() -> None:
    """Read the command line and install."""
    parser = argparse.ArgumentParser(description="Install Outpost from this stick, without any network.")
    parser.add_argument(
        "--to", type=Path, default=TO, help="folder (default: /usr/local/lib/outpost, and a service that starts it)"
    )
    parser.add_argument(
        "--key", help="the maker's key, as the maker shows it; else it is shown here, for you to compare"
    )
    told = parser.parse_args()
    try:
        say(install(told.to, told.key))
    except Refused as error:
        sys.exit(f"outpost: {error} Nothing was installed.")


def say(text: str) -> None:
    """Tell the person."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def install(to: Path, key: str | None) -> str:
    """Check the kit, and put it in the place of what runs; what was done, in words. Raises `Refused`."""
    held = to / KEY
    believed = key or (held.read_text(encoding="utf-8") if held.exists() else "")
    public = (KIT / KEY).read_text(encoding="utf-8").split()[-1]
    if believed and believed.split()[-1] != public:
        raise Refused("this kit is signed by somebody else than you named, or than what is installed here.")
    if not believed:
        say(
            f"This kit is signed with the key\n\n    {public}\n\nCompare it with the one that the maker shows you elsewhere."
        )
        if input("Is it the same? Type yes: ").strip().lower() != "yes":
            raise Refused("the key was not confirmed.")
    version, python, machine = signed(public)
    if (python, machine) != (f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine()):
        raise Refused(
            f"this kit is for Python {python} on {machine}; this computer has {platform.python_version()} on {platform.machine()}."
        )
    whole()
    say(f"The kit is whole and signed. Installing {version} …")
    fresh, place = to / f"{version}.new", to / version
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fill(fresh)
    except OSError as error:
        raise Refused(f"{to}: {error.strerror}. Put `sudo` before the command, or make room.") from None
    link, before = to / "current", to / "previous"
    if place.exists():  # the same version once more, perhaps because its disk has spoilt it
        old = to / f"{version}.old"
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        fresh.rename(place)
        shutil.rmtree(old)
    else:
        fresh.rename(place)
    if link.is_symlink() and link.readlink() != Path(version):
        point(before, str(link.readlink()))
    point(link, version)
    held.write_text(f"{public}\n", encoding="utf-8")
    os.sync()
    if to == TO and os.geteuid() == 0 and Path("/run/systemd/system").is_dir():
        serve(to)
        return f"Outpost {version} is installed and runs. `sudo cat /var/lib/outpost/setup-code` shows the code for the first lead."
    return f"Outpost {version} is installed: {link}/bin/outpost serve"


def signed(public: str) -> tuple[str, str, str]:
    """Version, Python and machine that the signature names. Raises `Refused` where it does not fit."""
    try:
        lines = (KIT / SIGNED).read_text(encoding="utf-8").splitlines()
        key, signature, last = (base64.b64decode(text) for text in (public, lines[1], lines[3]))
        comment = lines[2].removeprefix("trusted comment: ")
        _, version, python, machine = comment.split()
    except (OSError, ValueError, IndexError):
        raise Refused("the kit has no signature that can be read. Copy it to the stick again.") from None
    digest = hashlib.blake2b((KIT / SUMS).read_bytes()).digest()
    if signature[:10] != b"ED" + key[2:10] or not (
        fits(key[10:], signature[10:], digest) and fits(key[10:], last, signature[10:] + comment.encode())
    ):
        raise Refused("the signature does not fit: the kit was changed after it was signed. Fetch it again.")
    return version, python, machine


def fits(key: bytes, signature: bytes, text: bytes) -> bool:
    """Whether an Ed25519 signature is over that text, as openssl says."""
    with tempfile.TemporaryDirectory() as name:
        files = {"key": SPKI + key, "signature": signature, "text": text}
        for one, data in files.items():
            (Path(name) / one).write_bytes(data)
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key", "-rawin"]
        command += ["-in", "text", "-sigfile", "signature"]
        try:
            return subprocess.run(command, cwd=name, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            raise Refused("openssl is missing: apt-get install openssl.") from None


def whole() -> None:
    """Hold every file of the kit to its hash. Raises `Refused`."""
    for line in (KIT / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        try:
            with (KIT / name).open("rb") as file:
                same = hashlib.sha256(file.read()).hexdigest() == digest
        except OSError:
            same = False
        if not same:
            raise Refused(f"{name} is missing or damaged. Copy the kit to the stick again, or take another stick.")


def fill(folder: Path) -> None:
    """Put everything into a folder and let it show that it works here. Raises `Refused`."""
    (pip,) = (KIT / "wheels").glob("pip-*.whl")
    command = [
        sys.executable, "-I", str(pip / "pip"), "install", "--quiet", "--no-index", "--no-deps", "--require-hashes",
        "--only-binary=:all:", f"--find-links={KIT / 'wheels'}", f"--target={folder / 'lib'}", "-r", str(KIT / "requirements.txt"),
    ]  # fmt: skip
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    alone |= {"PIP_CONFIG_FILE": os.devnull, "PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    folder.mkdir(parents=True)
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"the packages could not be installed:\n{done.stderr.strip()[-1500:]}\n")
    program = folder / "bin/outpost"
    program.parent.mkdir(exist_ok=True)
    program.write_text(PROGRAM.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    tried = subprocess.run([program, "models", "verify"], env=alone, capture_output=True, text=True, check=False)
    if tried.returncode:
        raise Refused(f"it does not work on this computer:\n{(tried.stdout + tried.stderr).strip()[-1500:]}\n")


def point(link: Path, to: str) -> None:
    """Make a link point elsewhere at one stroke."""
    fresh = link.with_name(f"{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(to)
    fresh.replace(link)


def serve(to: Path) -> None:
    """Have systemd start it now and whenever the computer starts."""
    if subprocess.run(["id", "outpost"], capture_output=True, check=False).returncode:
        user = [
            "useradd",
            "--system",
            "--user-group",
            "--home-dir",
            "/var/lib/outpost",
            "--shell",
            "/usr/sbin/nologin",
            "outpost",
        ]
        subprocess.run(user, check=True)
    Path("/etc/systemd/system/outpost.service").write_text(UNIT.format(to=to), encoding="utf-8")
    for command in (["daemon-reload"], ["enable", "--quiet", "outpost"], ["restart", "outpost"]):
        subprocess.run(["systemctl", *command], check=True)


if __name__ == "__main__":
    main()
