"""Sending: one film to a DICOM node by C-STORE, as a modality would; the bytes travel as they are encoded."""

from __future__ import annotations

from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config

from edge.errors import Transient

AE_TITLE = "OUTPOST_DEMO"


def send(host: str, port: int, ae_title: str, path: Path, calling: str | None = None) -> None:
    """Send a DICOM file in its own transfer syntax, under the calling AE title if one is given.

    Raises `Transient` unless it was answered with success.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True  # from the file, undecoded: a damaged film arrives as damaged as it is
    meta = read_file_meta_info(path)
    ae = AE(calling or AE_TITLE)
    ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = ae.associate(host, port, ae_title=ae_title)
    if not association.is_established:
        raise Transient(f"{host}:{port} does not accept an association")
    try:
        status = association.send_c_store(path)
    finally:
        association.release()
    if status.get("Status") != 0:
        raise Transient(f"{host}:{port} answered {status.get('Status', 'nothing')} to {path.name}")
