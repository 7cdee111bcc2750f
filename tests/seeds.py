"""Films full of a patient: names, numbers, dates, addresses, telephones wherever a film has room for text; and the hunt."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom import DataElement, Dataset
from pydicom.datadict import DicomDictionary, dictionary_has_tag
from pydicom.dataset import FileDataset

from edge import samples

Gray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SCRIPTS = {
    "Latin": (("Ndiayeba", "Okonkwoh", "Ødegårdh", "Mwangiba"), ("Awatou", "Chidibo", "Søreni", "Neemaya")),
    "Arabic": (("الحسيني", "بوعزيزي", "عبدالله"), ("فاطمةال", "محمدابن", "إبراهيم")),
    "Cyrillic": (("Ивановский", "Кузнецова", "Шевченко"), ("Сергеевич", "Наталья", "Екатерина")),
    "Han": (("歐陽司馬", "諸葛上官"), ("文靜雅琴", "建國志明")),
    "Amharic": (("ተስፋዬሩ", "ገብረማርያም"), ("ዓለሙነህ", "ወርቅነሽ")),
}
ENCODINGS = (
    "utf-8",
    "utf-16-le",
    "utf-16-be",
    "latin-1",
    "iso8859-5",
    "iso8859-6",
    "gb18030",
    "iso2022_jp",
    "iso2022_kr",
    "shift_jis",
)

_TEXT = {"SH": 16, "LO": 64, "ST": 200, "LT": 200, "UT": 200, "UC": 200, "PN": 64}
_PLACES = sorted(
    tag
    for tag, entry in DicomDictionary.items()
    if entry[0] in _TEXT
    and entry[1] == "1"
    and not entry[3]
    and tag >> 16 > 2
    and entry[4] not in ("SoftwareVersions",)
)
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate", "PatientBirthDate")


@dataclass(frozen=True)
class Person:
    """Everything that says who somebody is."""

    family: str
    given: str
    number: str
    telephone: str
    address: str
    born: date
    taken: date

    def seeds(self) -> Iterator[str]:
        """Each in the forms in which people and systems write it."""
        yield from (self.family, self.given, self.number, self.telephone, self.address)
        yield self.telephone[:3] + " " + self.telephone[3:6] + " " + self.telephone[6:]
        for day in (self.born, self.taken):
            yield from (
                f"{day:{form}}" for form in ("%Y%m%d", "%Y-%m-%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%d%m%Y")
            )


def person(draw: random.Random, script: str) -> Person:
    """Somebody with names in that script."""
    families, givens = SCRIPTS[script]
    taken = date(2026, 1, 1) + timedelta(days=draw.randrange(300))
    return Person(
        draw.choice(families),
        draw.choice(givens),
        f"MRN{draw.randrange(10**6, 10**7)}",
        f"0{draw.randrange(10**9, 10**10)}",
        f"{draw.randrange(1000, 9999)} {draw.choice(families)} Road",
        date(1940, 1, 1) + timedelta(days=draw.randrange(24000)),
        taken,
    )


def film(who: Person, gray: Gray, draw: random.Random) -> FileDataset:
    """A film with that person in public, private and nested places; the pixels are as given."""
    name = f"{who.family}^{who.given}"
    return plant(samples.film(gray, name, "", draw.choice("MF"), view=draw.choice(["PA", "AP"])), who, draw)


def plant(ds: FileDataset, who: Person, draw: random.Random) -> FileDataset:
    """Put that person wherever an object has room for text."""
    name = f"{who.family}^{who.given}"
    texts = [name, f"{who.given} {who.family}", who.number, who.telephone, who.address, f"{who.born:%d.%m.%Y}"]
    for tag in draw.sample(_PLACES, 60):
        _put(ds, tag, draw.choice(texts))
    for keyword in ("PatientAddress", "PatientTelephoneNumbers", "OtherPatientIDs", "PatientComments", "ImageComments"):
        setattr(ds, keyword, draw.choice(texts))
    ds.PatientName, ds.PatientID, ds.AccessionNumber = name, who.number, who.number[-7:]
    ds.IssuerOfPatientID, ds.ReferringPhysicianName = who.address[:60], f"{who.given}^{who.family}"
    for keyword in _DATES:
        setattr(ds, keyword, f"{who.taken:%Y%m%d}")
    ds.PatientBirthDate = f"{who.born:%Y%m%d}"
    ds.AcquisitionDateTime = f"{who.taken:%Y%m%d}080000"
    ds.Manufacturer, ds.BodyPartExamined = who.family, "CHEST"
    ds.SeriesInstanceUID = f"1.2.826.{who.telephone[1:]}.7"
    block = ds.private_block(0x0011, who.family[:16], create=True)
    block.add_new(1, "LO", who.address[:64])
    block.add_new(2, "UN", name.encode())
    block.add_new(3, "SQ", [_nested(texts, draw, 2)])
    for keyword in ("AnatomicRegionSequence", "ViewCodeSequence", "ContributingEquipmentSequence", "RequestAttributesSequence",
                    "ReferencedImageSequence", "AcquisitionContextSequence", "OriginalAttributesSequence"):  # fmt: skip
        setattr(ds, keyword, [_nested(texts, draw, 3)])
    ds.file_meta.add_new(0x00020016, "AE", who.number)
    ds.file_meta.add_new(0x00020100, "UI", "1.2.3")
    ds.file_meta.add_new(0x00020102, "OB", who.family.encode())
    ds.preamble = (who.number + who.telephone).encode().ljust(128, b"\0")
    return ds


def _nested(texts: list[str], draw: random.Random, depth: int) -> Dataset:
    ds = Dataset()
    for tag in draw.sample(_PLACES, 8):
        _put(ds, tag, draw.choice(texts))
    if draw.random() < 0.5:
        ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = draw.choice(texts)[:16], "SCT", draw.choice(texts)
    ds.private_block(0x0013, "NESTED", create=True).add_new(1, "LT", draw.choice(texts))
    ds.StudyDate = texts[-1][6:] + texts[-1][3:5] + texts[-1][:2]
    if depth:
        keyword = draw.choice(("ReferencedSeriesSequence", "PurposeOfReferenceCodeSequence", "ContentSequence"))
        setattr(ds, keyword, [_nested(texts, draw, depth - 1)])
    return ds


def _put(ds: Dataset, tag: int, text: str) -> None:
    vr = DicomDictionary[tag][0]
    assert dictionary_has_tag(tag)
    ds.add(DataElement(tag, vr, text[: _TEXT[vr]]))


def written(gray: Gray, text: str, size: int, left: int, top: int, ink: float = 1.0) -> tuple[Gray, Mask]:
    """The picture with a text burned in, and which pixels it changed so that it can be seen."""
    canvas = Image.new("L", gray.shape[::-1])
    ImageDraw.Draw(canvas).text((left, top), text, fill=255, font=ImageFont.load_default(size))
    share = np.asarray(canvas, np.float32) / 255
    made = gray * (1 - share) + ink * share
    return made, np.abs(made - gray) > 0.1


def hunt(data: bytes, who: Person) -> set[str]:
    """Which of a person's seeds are in some bytes, in whatever encoding, capitals or not."""
    folded = data.lower()
    return {
        seed
        for seed in who.seeds()
        if any(form.lower() in folded for form in texts(seed)) or any(form in data for form in in_base64(seed))
    }


def texts(seed: str) -> set[bytes]:
    """A text in each encoding that has its letters."""
    found = set()
    for encoding in ENCODINGS:
        for text in (seed, seed.lower()):
            try:
                found.add(text.encode(encoding))
            except UnicodeEncodeError:
                break
    return found


def in_base64(seed: str) -> set[bytes]:
    """A text within what is written in base64, at each of the three alignments."""
    found = set()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + seed.encode()).rstrip(b"=")
        found.add(encoded[(0, 2, 3)[shift] : -1])
    return found
