"""Sample films for the demo and the bench: real ones of `pydicom-data`, synthesized ones, and things a box must refuse."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from edge.errors import Misconfigured
from models import phantom

Gray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """A film to show, under the name the demo gives it."""

    name: str
    path: Path


def samples(folder: Path) -> list[Sample]:
    """Write the synthesized films below `folder` and give them with the real ones, in the order they shall arrive.

    Raises `Misconfigured` when the package with the real films is missing.
    """
    made: list[tuple[str, Callable[[], Dataset]]] = [
        ("synthesized adult", lambda: film(phantom.chest(1), "Ndiaye^Awa", "058Y", "F")),
        ("synthesized child", lambda: film(phantom.chest(13), "Okafor^Chidi", "003Y", "M")),
        ("synthesized adult, denser lung", lambda: film(phantom.chest(60, opacity=True), "Silva^João", "044Y", "M")),
        ("synthesized child, denser lung", lambda: film(phantom.chest(4, opacity=True), "Mwangi^Neema", "002Y", "F")),
        ("adult, RLE, white is dark", lambda: rle(film(phantom.chest(5), "Haddad^Layla", "031Y", "F", inverse=True))),
        ("age not known", lambda: film(phantom.chest(6), "Traoré^Fatou", "", "F")),
        ("school child, not tested at that age", lambda: film(phantom.chest(7), "Diallo^Ibrahim", "011Y", "M")),
        ("lateral view", lambda: film(phantom.chest(8), "Santos^Maria", "066Y", "F", view="LL")),
        ("a hip by its header", lambda: film(phantom.chest(9), "Kamau^Peter", "050Y", "M", part="HIP")),
        ("black and white exchanged", lambda: film(1 - phantom.chest(10), "Nguyen^Van", "039Y", "M")),
        ("blank exposure", lambda: film(np.full((1024, 1024), 0.5, np.float32), "Ali^Amina", "027Y", "F")),
        ("a CT slice", lambda: ct(film(phantom.chest(11), "Mensah^Kofi", "070Y", "M"))),
    ]
    found = [Sample(name, path) for name, path in real_films()]
    for number, (name, make) in enumerate(made):
        path = folder / f"{number:02}.dcm"
        make().save_as(path, enforce_file_format=True)
        found.insert(min(len(found), 2 * number + 1), Sample(name, path))
    truncated = folder / "truncated.dcm"
    truncated.write_bytes(real_films()[0][1].read_bytes()[:90_000])
    return [*found, Sample("cut off on the way", truncated)]


def real_films() -> list[tuple[str, Path]]:
    """The chest film of the PyPI package `pydicom-data` in its encodings (NEMA WG-04, 15-bit MONOCHROME1)."""
    found = importlib.util.find_spec("data_store")
    if found is None or found.origin is None:
        raise Misconfigured("the sample films are missing. Install them with: pip install pydicom-data")
    folder = Path(found.origin).parent / "data"
    return [
        ("chest CR, JPEG 2000 lossless", folder / "RG1_J2KR.dcm"),
        ("chest CR, uncompressed", folder / "RG1_UNCR.dcm"),
        ("chest CR, JPEG 2000 lossy", folder / "RG1_J2KI.dcm"),
        ("chest CR, same identifier, other bytes", folder / "RG1_UNCI.dcm"),
    ]


def film(
    gray: Gray, name: str, age: str, sex: str, view: str = "PA", part: str = "CHEST", inverse: bool = False
) -> FileDataset:
    """A 12-bit DX film of a picture in [0, 1], bones bright; its identifiers are derived from what is in it."""
    stored = np.rint((1 - gray if inverse else gray) * 4095).astype("<u2")
    seed = [name, age, view, part, stored.tobytes().hex()[:4096]]
    dataset = _dataset(generate_uid(entropy_srcs=[*seed, "instance"]), DigitalXRayImageStorageForPresentation)
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[*seed, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[*seed, "series"])
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.Modality, dataset.Manufacturer = "DX", "Outpost synthesized"
    dataset.PatientName, dataset.PatientSex = name, sex
    dataset.PatientID = str(int(generate_uid(entropy_srcs=[name])[-8:]))
    dataset.PatientAge, dataset.PatientBirthDate = age, ""
    dataset.StudyDate = dataset.AcquisitionDate = "20261101"
    dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "080000", "", "1"
    dataset.BodyPartExamined, dataset.ViewPosition = part, view
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverse else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = stored.tobytes()
    return dataset


def rle(dataset: FileDataset) -> FileDataset:
    """The same film, run-length encoded (PS3.5 G)."""
    dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def jpeg2000(dataset: FileDataset) -> FileDataset:
    """The same film in reversible JPEG 2000 (PS3.5 A.4.4)."""
    from openjpeg.utils import encode_array

    codestream = encode_array(dataset.pixel_array, bits_stored=dataset.BitsStored, photometric_interpretation=2)
    dataset.PixelData = encapsulate([codestream])
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return dataset


def ct(dataset: FileDataset) -> FileDataset:
    """The same pixels under a header that says CT."""
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.Modality = "CT"
    return dataset


def _dataset(instance: UID, sop_class: UID) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance
    return dataset
