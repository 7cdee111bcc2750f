"""Ways a film can be broken: for the property tests and the fuzz target, so that both break films alike."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from edge.samples import film
from models import phantom

ENCODINGS = ("raw", "rle", "jpeg 2000", "jpeg-ls")
_SYNTAX = {"rle": RLELossless, "jpeg 2000": JPEG2000Lossless, "jpeg-ls": JPEGLSLossless}


@cache
def whole(encoding: str) -> bytes:
    """A good film of 256 x 256 pixels as a DICOM file."""
    dataset = film(phantom.chest(1, (256, 256)), "Test^One", "040Y", "F")
    if encoding != "raw":
        dataset.compress(_SYNTAX[encoding], generate_instance_uid=False)
    return to_bytes(dataset)


def to_bytes(dataset: FileDataset) -> bytes:
    """The film as a DICOM file."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def flipped(data: bytes, seed: int, count: int) -> bytes:
    """The file with so many bytes changed."""
    draw = np.random.default_rng(seed)
    changed = np.frombuffer(data, np.uint8).copy()
    changed[draw.integers(0, len(changed), count)] = draw.integers(0, 256, count, dtype=np.uint8)
    return changed.tobytes()


def absurd(keyword: str, value: object) -> bytes:
    """The film with one attribute set to something it must not be."""
    dataset = film(phantom.chest(1, (256, 256)), "Test^One", "040Y", "F")
    if value is None:
        del dataset[keyword]
    else:
        setattr(dataset, keyword, value)
    return to_bytes(dataset)


def other_kind(sop_class: str, modality: str) -> bytes:
    """A file that is no film at all: a structured report, an encapsulated PDF."""
    dataset = film(phantom.chest(1, (256, 256)), "Test^One", "040Y", "F")
    keep = Dataset()
    for keyword in (
        "PatientName",
        "PatientID",
        "PatientAge",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
    ):
        keep[keyword] = dataset[keyword]
    file = FileDataset("", keep, file_meta=dataset.file_meta, preamble=b"\0" * 128)
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = sop_class
    file.Modality = modality
    return to_bytes(file)
