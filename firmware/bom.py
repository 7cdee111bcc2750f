"""What an image is made of: its bill of materials (CycloneDX 1.5, ECMA-424) and the licences of all that is in it.

Debian's packages and their copyright files are read from the very tar that becomes the system, Python's from the folders that are
laid over it. The same system has the same bill: nothing in it is drawn or dated by a clock.
"""

from __future__ import annotations

import email
import fnmatch
import hashlib
import json
import re
import tarfile
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

STATUS = "var/lib/dpkg/status"
COPYRIGHT = re.compile(r"usr/share/doc/([^/]+)/copyright")
DOCUMENTS = re.compile(r"usr/share/doc/([^/]+)")
"""Of a package; those of another may be named instead (Debian Policy 12.5)."""
LISTED = re.compile(r"var/lib/dpkg/info/(firmware-[^/]+)\.list")
BLOBS = "lib/firmware/"
"""Below /usr or not; the packages of blobs share one copyright file, which speaks of many more than are there."""
LICENSE = re.compile(r"^License:[ \t]*(\S[^\n]*)$", re.MULTILINE)
"""A stanza's short name (copyright-format 1.0)."""
COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]+[A-Za-z0-9])")
"""What an older copyright file, in prose, points to."""
UNKNOWN = "not stated in a form that can be read by a program"


@dataclass(frozen=True, order=True)
class Part:
    """One package of an image."""

    name: str
    version: str
    purl: str
    """Its name everywhere (package-url)."""
    licences: tuple[str, ...]


def debian(tar: Path, suite: str) -> list[Part]:
    """The packages of a Debian, as its own database says. The copyright of one may stand with another of the same source."""
    status, files, lists, links, there = "", dict[str, str](), dict[str, str](), dict[str, str](), set[str]()
    with tarfile.open(tar) as opened:
        for member in opened:
            name = member.name.removeprefix("./")
            found, listed = COPYRIGHT.fullmatch(name), LISTED.fullmatch(name)
            if not member.isdir() and name.removeprefix("usr/").startswith(BLOBS):
                there.add(name.removeprefix("usr/").removeprefix(BLOBS))
            if member.issym() and (link := DOCUMENTS.fullmatch(name)):
                links[link[1]] = Path(member.linkname).name
            if member.isreg() and (name == STATUS or found or listed):
                file = opened.extractfile(member)
                assert file is not None
                text = file.read().decode("utf-8", "replace")
                if found:
                    files[found[1]] = text
                elif listed:
                    lists[listed[1]] = text
                else:
                    status = text
    for name in links:
        meant = name
        for _ in links:
            meant = links.get(meant, meant)
        if meant in files:
            files[name] = files[meant]
    blobs = {name: there & {line.partition(BLOBS)[2] for line in text.splitlines()} for name, text in lists.items()}
    return sorted(_debian(status, files, blobs, suite))


def _debian(status: str, files: dict[str, str], blobs: dict[str, set[str]], suite: str) -> Iterator[Part]:
    stanzas = [said for text in status.split("\n\n") if (said := email.message_from_string(text))["Package"]]
    source = {said["Package"]: (said["Source"] or said["Package"]).split()[0] for said in stanzas}
    shared = {source[name]: text for name, text in sorted(files.items()) if name in source}
    for said in stanzas:
        name, version = said["Package"], said["Version"]
        if "installed" in (said["Status"] or "").split():
            text = files.get(name) or shared.get(source[name], "")
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={said['Architecture']}&distro={suite}"
            yield Part(name, version, purl, _of(blobs[name], text) if name in blobs else _named(text))


def _of(blobs: set[str], text: str) -> tuple[str, ...]:
    """The licences of some files: of the stanzas that name one, the last holds (copyright-format 1.0)."""
    stanzas = [said for one in text.split("\n\n") if (said := email.message_from_string(one))["Files"]]
    found = dict.fromkeys(blobs, UNKNOWN)
    for said in stanzas:
        for blob in blobs:
            if any(fnmatch.fnmatchcase(blob, pattern) for pattern in said["Files"].split()):
                found[blob] = said["License"].splitlines()[0].strip()
    return tuple(sorted(set(found.values()))) or (UNKNOWN,)


def _named(text: str) -> tuple[str, ...]:
    found = LICENSE.findall(text) if "Format:" in text[:400] else COMMON.findall(text)
    return tuple(sorted({one.strip() for one in found})) or (UNKNOWN,)


def python(folders: Iterable[Path]) -> list[Part]:
    """The Python packages of some folders, as their own metadata say."""
    found = []
    for path in (path for folder in folders for path in folder.glob("*.dist-info/METADATA")):
        said = email.message_from_string(path.read_text(encoding="utf-8"))
        classified = [
            one.rpartition(" :: ")[2] for one in said.get_all("Classifier") or () if one.startswith("License ::")
        ]
        free = (said["License"] or "").strip().splitlines()[:1]
        stated = [said["License-Expression"]] if said["License-Expression"] else classified or free
        name = re.sub(r"[-_.]+", "-", said["Name"]).lower()
        found.append(Part(name, said["Version"], f"pkg:pypi/{name}@{said['Version']}", tuple(stated) or (UNKNOWN,)))
    return sorted(found)


def bill(parts: list[Part], name: str, version: str, at: int) -> str:
    """The bill of materials as JSON; `at` is the image's own moment, in seconds."""
    components = [
        {
            "type": "library",
            "bom-ref": part.purl,
            "name": part.name,
            "version": part.version,
            "licenses": [{"license": {"name": one}} for one in part.licences],
            "purl": part.purl,
        }
        for part in parts
    ]
    digest = hashlib.sha256(json.dumps(components, sort_keys=True).encode()).hexdigest()
    told = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f'{name} {version} {digest}')}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"),
            "component": {"type": "firmware", "bom-ref": name, "name": name, "version": version},
        },
        "components": components,
    }
    return json.dumps(told, indent=1) + "\n"


def licences(parts: list[Part]) -> str:
    """Who is under which licence, for people; the texts are in the image, under /usr/share/doc and beside each Python package."""
    rows = [f"{part.name} {part.version}: {'; '.join(part.licences)}" for part in parts]
    return "\n".join(rows) + "\n"
