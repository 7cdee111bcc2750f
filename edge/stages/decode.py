"""Decode: from the encoded pixels to the picture a person would see (PS3.3 C.7.6.3, C.11.1, C.11.2, PS3.4 N.2).

For the model the film is averaged down first, to no less than `WORKING_SIDE`, and windowed afterwards, which is many times
faster and differs by less than a thousandth of full scale; for people it stays neutral, and they choose the window.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.multival import MultiValue
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from edge import codecs
from edge.records import Display, Radiograph, Reason, Refusal, Rendition

WORKING_SIDE = 224
"""The shorter side, in pixels, below which averaging down stops: what the model looks at."""

LONGEST_SIDE = 4096
"""What people look at is averaged down to this: no screen shows more, and not every tablet holds more in its graphics memory."""

ABSURD_PIXELS = 100_000_000
"""No plain film has more; the largest detectors have about 20 million."""

Pixels = npt.NDArray[Any]

_JPEG2000 = frozenset({JPEG2000, JPEG2000Lossless})
_CODECS = {
    JPEGBaseline8Bit: "gdcm",
    JPEGExtended12Bit: "gdcm",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "jpeg_ls",
    JPEGLSNearLossless: "jpeg_ls",
}


def decode(dataset: Dataset) -> Radiograph | Refusal:
    """The film as the model shall see it, from `WORKING_SIDE` to twice that on its shorter side."""
    return _guarded(_decode, dataset)


def render(dataset: Dataset) -> Rendition | Refusal:
    """The film for people, at full size up to `LONGEST_SIDE`."""
    return _guarded(_render, dataset)


Seen = TypeVar("Seen", Radiograph, Rendition)


def _guarded(step: Callable[[Dataset], Seen | Refusal], dataset: Dataset) -> Seen | Refusal:
    try:
        return _refusal(dataset) or step(dataset)
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  damaged input raises nearly anything; a codec in Rust even a panic
        return Refusal(Reason.DAMAGED, f"{type(error).__name__}: {error}")


def _decode(dataset: Dataset) -> Radiograph | Refusal:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    # a power of two, as JPEG 2000 has its resolutions: whatever its encoding, a film is averaged alike
    factor = 1 << max(0, (min(rows, columns) // WORKING_SIDE).bit_length() - 1)
    averaged = _averaged(dataset, factor)
    if isinstance(averaged, Refusal):
        return averaged
    return Radiograph(_isotropic(_presentation(dataset, *averaged), dataset), rows, columns)


def _averaged(dataset: Dataset, factor: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None] | Refusal:
    stored = _stored_values(dataset, factor)
    if isinstance(stored, Refusal):
        return stored
    reduced = round(int(dataset.Rows) / stored.shape[0])  # JPEG 2000 may have come reduced already
    values, valid = _average(stored, factor // reduced, _padding(dataset))
    return _centered(values, reduced), valid


def _render(dataset: Dataset) -> Rendition | Refusal:
    factor = 1
    while max(int(dataset.Rows), int(dataset.Columns)) > factor * LONGEST_SIDE:
        factor *= 2
    averaged = _averaged(dataset, factor)
    if isinstance(averaged, Refusal):
        return averaged
    values, valid = averaged
    values = _modality(dataset, values)
    inside = values if valid is None or not valid.any() else values[valid]
    if dataset.get("VOILUTSequence") or str(dataset.get("VOILUTFunction")) == "SIGMOID":
        # no straight window does what these do, so they are applied, and the whole range is the film's own window
        values, low, high, windows = _voi(dataset, values, inside), 0.0, 1.0, [(0.5, 1.0)]
    else:
        low, high, windows = float(inside.min()), float(inside.max()), _windows(dataset, inside)
    scale = 65535 / max(high - low, 1e-6)
    gray = _isotropic(np.clip((values - np.float32(low)) * np.float32(scale), 0, 65535), dataset)
    scaled = [((center - low) * scale, width * scale) for center, width in windows]
    if _inverted(dataset):
        gray = 65535 - gray
        scaled = [(65535 - center, width) for center, width in scaled]
    if valid is not None and valid.shape == gray.shape:
        gray[~valid] = 0
    millimetres, at_detector = _spacing(dataset)
    size = None if millimetres is None else millimetres * max(int(dataset.Rows), int(dataset.Columns)) / max(gray.shape)
    return Rendition(np.rint(gray).astype(np.uint16), Display(tuple(scaled), size, at_detector))


def _windows(dataset: Dataset, inside: npt.NDArray[np.float32]) -> list[tuple[float, float]]:
    """The straight windows that the film names (PS3.3 C.11.2.1.2), else its own range."""
    named = zip(_every(dataset, "WindowCenter"), _every(dataset, "WindowWidth"), strict=False)
    exact = str(dataset.get("VOILUTFunction") or "LINEAR") == "LINEAR_EXACT"
    windows = [
        (center, width) if exact else (center - 0.5, max(width - 1, 1e-6)) for center, width in named if width > 0
    ]
    if windows:
        return windows
    low, high = np.percentile(inside, (0.1, 99.9))
    return [(float(low + high) / 2, max(float(high - low), 1e-6))]


def _spacing(dataset: Dataset) -> tuple[float | None, bool]:
    """The side of a pixel in millimetres, and whether it is measured at the detector (PS3.3 C.8.11.4, 10.7.1.3)."""
    calibrated = dataset.get("PixelSpacingCalibrationType") is not None
    for keyword, at_detector in (("PixelSpacing", not calibrated), ("ImagerPixelSpacing", True)):
        sides = _every(dataset, keyword)
        if sides and sides[0] > 0:
            return sides[-1], at_detector
    return None, True


def _refusal(dataset: Dataset) -> Refusal | None:
    if "PixelData" not in dataset:
        return Refusal(Reason.NO_PIXELS, "no Pixel Data (7FE0,0010)")
    if _integer(dataset, "NumberOfFrames", 1) > 1:
        return Refusal(Reason.MULTI_FRAME, f"{dataset.NumberOfFrames} frames")
    if _integer(dataset, "SamplesPerPixel", 1) != 1:
        return Refusal(Reason.COLOUR, f"{dataset.SamplesPerPixel} samples per pixel")
    if str(dataset.get("PhotometricInterpretation", "")) not in ("MONOCHROME1", "MONOCHROME2"):
        return Refusal(Reason.COLOUR, f"photometric interpretation {dataset.get('PhotometricInterpretation')}")
    rows, columns = _integer(dataset, "Rows", 0), _integer(dataset, "Columns", 0)
    if rows < 1 or columns < 1:
        return Refusal(Reason.DAMAGED, f"{rows} rows, {columns} columns")
    if rows * columns > ABSURD_PIXELS:
        return Refusal(Reason.TOO_LARGE, f"{rows} rows, {columns} columns")
    allocated = _integer(dataset, "BitsAllocated", 0)
    if allocated not in (8, 16) or not 1 <= _integer(dataset, "BitsStored", allocated) <= allocated:
        return Refusal(Reason.ENCODING_UNSUPPORTED, f"{allocated} bits allocated, {dataset.get('BitsStored')} stored")
    return None


def _integer(dataset: Dataset, keyword: str, default: int) -> int:
    value = dataset.get(keyword)
    return default if value is None else int(value)


def _stored_values(dataset: Dataset, factor: int) -> Pixels | Refusal:
    """The stored pixel values (rows, columns), sign-extended; JPEG 2000 comes at up to 1/`factor` of its size."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    allocated = int(dataset.BitsAllocated)
    signed = _integer(dataset, "PixelRepresentation", 0) == 1
    syntax = UID(dataset.file_meta.get("TransferSyntaxUID") or "1.2.840.10008.1.2")
    if not syntax.is_transfer_syntax:
        return Refusal(Reason.ENCODING_UNSUPPORTED, f"transfer syntax {syntax}")
    if not syntax.is_compressed or syntax.is_deflated:
        size = rows * columns * allocated // 8
        data = dataset.PixelData
        if len(data) < size:
            return Refusal(Reason.DAMAGED, f"{len(data)} bytes of pixels, {size} expected")
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        pixels: Pixels = np.frombuffer(data, f"{order}u{allocated // 8}", rows * columns).reshape(rows, columns)
        return _sign(pixels, dataset, signed)
    if syntax in _JPEG2000:
        return _jpeg2000(dataset, factor, signed)
    if syntax == RLELossless:
        from rle.utils import decode_frame  # type: ignore[attr-defined]

        plain = decode_frame(_frame(dataset), rows * columns, allocated, "<")
        return _sign(np.frombuffer(plain, f"<u{allocated // 8}").reshape(rows, columns), dataset, signed)
    if syntax in _CODECS:
        if (refusal := _jpeg_mismatch(dataset)) is not None:
            return refusal
        codecs.load(_CODECS[syntax], syntax)
        try:
            pixels = dataset.pixel_array
        except RuntimeError as error:  # no codec could: damaged, or a process that none of them knows
            reason = Reason.ENCODING_UNSUPPORTED if syntax == JPEGExtended12Bit else Reason.DAMAGED
            return Refusal(reason, str(error).splitlines()[0])
        return _sign(pixels, dataset, signed) if pixels.dtype.kind == "u" else pixels
    return Refusal(Reason.ENCODING_UNSUPPORTED, f"transfer syntax {syntax.name}")


def _sign(pixels: Pixels, dataset: Dataset, signed: bool) -> Pixels:
    """Keep the stored bits only (PS3.5 8.1.1: what lies above High Bit is not pixel data) and extend their sign."""
    stored, allocated = _integer(dataset, "BitsStored", int(dataset.BitsAllocated)), int(dataset.BitsAllocated)
    shift = _integer(dataset, "HighBit", stored - 1) + 1 - stored
    if shift > 0:
        pixels = pixels >> shift
    if not signed:
        most = (1 << stored) - 1
        return pixels if int(pixels.max()) <= most else pixels & most
    spare = allocated - stored
    native = pixels.astype(f"u{allocated // 8}")
    return (native << spare).view(f"i{allocated // 8}") >> spare


def _jpeg2000(dataset: Dataset, factor: int, signed: bool) -> Pixels | Refusal:
    """Decode at the resolution level that is just above what is needed (PS3.5 A.4.4); each level costs a quarter."""
    from openjpeg.utils import get_parameters

    frame = _frame(dataset)
    coded = get_parameters(frame)
    size = coded["rows"], coded["columns"]
    if size != (dataset.Rows, dataset.Columns):
        return Refusal(Reason.DAMAGED, f"the header says {dataset.Rows} x {dataset.Columns}, the picture {size}")
    if coded["samples_per_pixel"] != 1:
        return Refusal(Reason.COLOUR, f"JPEG 2000 of {coded['samples_per_pixel']} components")
    if coded["is_signed"] or signed:  # Pillow moves signed values up by half the range
        codecs.load("pylibjpeg", dataset.file_meta.TransferSyntaxUID)
        return dataset.pixel_array
    try:
        pixels = _openjpeg(frame, factor.bit_length() - 1)
    except OSError:  # it has fewer levels than that, which is rare: the whole of it is decoded
        pixels = _openjpeg(frame, 0)
    # Pillow fills the whole byte or word: PS3.5 8.2.4 has the values in their own precision
    shifted: Pixels = pixels >> (pixels.dtype.itemsize * 8 - int(coded["precision"]))
    return shifted


def _openjpeg(codestream: bytes, levels: int) -> Pixels:
    """The picture without its finest `levels` of resolution."""
    with Image.open(io.BytesIO(codestream)) as image:
        if levels > 0:
            image.reduce = levels  # type: ignore[assignment,method-assign]
            # OpenJPEG rounds the reduced size up; this makes Pillow, which rounds it to the nearest, come to the same
            power = 1 << levels
            columns, rows = (-(-side // power) * power - power // 2 for side in image.size)
            image._size = columns, rows
        return np.asarray(image)


def _frame(dataset: Dataset) -> bytes:
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def _jpeg_mismatch(dataset: Dataset) -> Refusal | None:
    """Compare the frame header (ITU-T T.81 B.2.2) with the DICOM header before a codec allocates by it."""
    frame = _frame(dataset)
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4])
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            size = int.from_bytes(frame[at + 5 : at + 7]), int.from_bytes(frame[at + 7 : at + 9])
            if size == (dataset.Rows, dataset.Columns):
                return None
            return Refusal(Reason.DAMAGED, f"the header says {dataset.Rows} x {dataset.Columns}, the picture {size}")
        at += 2 + length
    return Refusal(Reason.DAMAGED, "no JPEG frame header")


def _padding(dataset: Dataset) -> tuple[float, float] | None:
    """The range of Pixel Padding Value (PS3.3 C.7.5.1.1.2), in stored values."""
    if dataset.get("PixelPaddingValue") is None:
        return None
    bounds = float(dataset.PixelPaddingValue), float(dataset.get("PixelPaddingRangeLimit") or dataset.PixelPaddingValue)
    return min(bounds), max(bounds)


def _average(
    stored: Pixels, factor: int, padding: tuple[float, float] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
    """Mean of each `factor` x `factor` block without its padding, and which blocks hold anything but padding."""
    if padding is None:
        return _block_sum(stored, factor) / _block_sizes(stored.shape, factor), None
    inside = (stored < padding[0]) | (stored > padding[1])
    counts = _block_sum(inside.view(np.uint8), factor)
    sums = _block_sum(np.where(inside, stored, stored.dtype.type(0)), factor)
    return (sums / np.maximum(counts, 1)).astype(np.float32), counts > 0


def _centered(values: npt.NDArray[np.float32], reduced: int) -> npt.NDArray[np.float32]:
    """Turn what came reduced into the means of its blocks.

    A reduced JPEG 2000 sample sits on the first pixel of its block (ISO 15444-1 F.3), a mean in the middle of it. So each
    pixel of a block is interpolated (Lanczos 3) and their mean is taken, both at once.
    """
    if reduced == 1:
        return values
    taps = np.arange(-2, 4)
    distance = taps[:, None] - np.arange(reduced) / reduced
    weights = (np.sinc(distance) * np.sinc(distance / 3)).mean(axis=1)
    for axis in (0, 1):
        at = np.arange(values.shape[axis])
        values = sum(
            np.float32(weight) * values.take(np.clip(at + tap, 0, at[-1]), axis)
            for tap, weight in zip(taps, weights / weights.sum(), strict=True)
        )
    return values


def _block_sizes(shape: tuple[int, ...], factor: int) -> npt.NDArray[np.float32]:
    """How many pixels each block has; those at the lower and right edge may be smaller."""
    rows, columns = (np.minimum(factor, length - np.arange(0, length, factor)) for length in shape)
    return np.outer(rows, columns).astype(np.float32)


def _block_sum(pixels: Pixels, factor: int) -> npt.NDArray[np.float32]:
    # adding whole strided planes keeps the inner loop long: 2.6 ms for 5 megapixels against 10 ms by np.add.reduceat
    if factor == 1:
        return pixels.astype(np.float32)
    wide = "i4"
    if pixels.dtype.kind == "u":  # half the memory traffic where sums of lines fit into 16 bits
        wide = "u2" if int(pixels.max()) * factor <= 0xFFFF else "u4"
    lines = pixels[0::factor].astype(wide)
    for offset in range(1, factor):
        part = pixels[offset::factor]
        lines[: len(part)] += part
    sums = lines[:, 0::factor].astype(np.float32)
    for offset in range(1, factor):
        part = lines[:, offset::factor]
        sums[:, : part.shape[1]] += part
    return sums


def _presentation(
    dataset: Dataset, values: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.float32]:
    """Modality LUT, VOI LUT or window, then polarity (PS3.4 N.2.1): P-Values in [0, 1], bones bright."""
    values = _modality(dataset, values)
    inside = values if valid is None or not valid.any() else values[valid]
    gray = _voi(dataset, values, inside)
    if _inverted(dataset):
        gray = 1 - gray
    if valid is not None:
        gray[~valid] = 0
    return gray


def _inverted(dataset: Dataset) -> bool:
    """PS3.3 C.8.11.3.1.2: MONOCHROME1 and Presentation LUT Shape INVERSE say the same thing, so it is inverted once."""
    return (
        str(dataset.PhotometricInterpretation) == "MONOCHROME1" or str(dataset.get("PresentationLUTShape")) == "INVERSE"
    )


def _modality(dataset: Dataset, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """PS3.3 C.11.1."""
    if tables := dataset.get("ModalityLUTSequence"):
        return _look_up(tables[0], values)
    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    return values if (slope, intercept) == (1, 0) else values * np.float32(slope) + np.float32(intercept)


def _voi(dataset: Dataset, values: npt.NDArray[np.float32], inside: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """PS3.3 C.11.2, the first of several views; without one the film's own range is shown."""
    if tables := dataset.get("VOILUTSequence"):
        return _look_up(tables[0], values) / np.float32(2 ** int(tables[0].LUTDescriptor[2]) - 1)
    center, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if center is None or width is None or width <= 0:
        low, high = np.percentile(inside, (0.1, 99.9))
        center, width = (low + high) / 2, max(high - low, 1e-6)
        function = "LINEAR_EXACT"
    else:
        function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if function == "SIGMOID":
        slope: npt.NDArray[np.float32] = np.clip(4 * (values - center) / width, -50, 50).astype(np.float32)
        return np.asarray(1 / (1 + np.exp(-slope)), np.float32)
    if function == "LINEAR":  # C.11.2.1.2.1: half a value off, over one value less
        center, width = center - 0.5, max(width - 1, 1e-6)
    shown: npt.NDArray[np.float32] = np.clip((values - center) / width + 0.5, 0, 1).astype(np.float32)
    return shown


def _first(dataset: Dataset, keyword: str) -> float | None:
    return next(iter(_every(dataset, keyword)), None)


def _every(dataset: Dataset, keyword: str) -> list[float]:
    value = dataset.get(keyword)
    if value is None:
        return []
    return [float(one) for one in value] if isinstance(value, (MultiValue, list, tuple)) else [float(value)]


def _look_up(table: Dataset, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """PS3.3 C.11.1.1.1: entries, first value mapped, bits; 0 entries stands for 65536."""
    entries, first, bits = (int(number) for number in table.LUTDescriptor)
    data = table.LUTData
    if isinstance(data, bytes):
        entries_found = np.frombuffer(data, np.uint8 if bits <= 8 and len(data) == (entries or 65536) else np.uint16)
    else:
        entries_found = np.asarray(data, np.uint16)
    if first > 32767 and values.min() < 0:  # written as unsigned where the stored values are signed
        first -= 65536
    index = np.clip(np.rint(values) - first, 0, len(entries_found) - 1).astype(np.int64)
    found: npt.NDArray[np.float32] = entries_found[index].astype(np.float32)
    return found


def _isotropic(gray: npt.NDArray[np.float32], dataset: Dataset) -> npt.NDArray[np.float32]:
    """Stretch the lower-resolved side so that pixels are square (PixelAspectRatio, PS3.3 C.7.6.3.1.7: vertical, horizontal)."""
    ratio = dataset.get("PixelAspectRatio")
    if not ratio or len(ratio) != 2 or min(float(side) for side in ratio) <= 0:
        return gray
    tall = float(ratio[0]) / float(ratio[1])
    if tall == 1 or not 0.1 <= tall <= 10:
        return gray
    rows, columns = gray.shape
    size = (columns, round(rows * tall)) if tall > 1 else (round(columns / tall), rows)
    return np.asarray(Image.fromarray(gray, "F").resize(size, Image.Resampling.BILINEAR))
