"""Decode: the picture a person would see, from every way DICOM can say it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from edge.records import Radiograph, Reason, Refusal, Rendition
from edge.samples import film
from edge.stages.decode import decode, render
from models import phantom


def some(size: tuple[int, int] = (512, 448), **attributes: Any) -> FileDataset:
    """A film with the attributes given."""
    dataset = film(phantom.chest(1, size), "Test^One", "040Y", "F")
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def gray(dataset: Dataset, full: bool = True) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the model sees, or in full what a person sees who opens the film: the rendition in its first window."""
    if full:
        rendition = render(dataset)
        assert isinstance(rendition, Rendition), rendition
        center, width = rendition.display.windows[0]
        return np.clip((rendition.values.astype(np.float32) - center) / width + 0.5, 0, 1)
    picture = decode(dataset)
    assert isinstance(picture, Radiograph), picture
    return picture.gray


def stored(dataset: FileDataset, values: np.ndarray[Any, Any], bits: int, signed: bool = False) -> FileDataset:
    """The film with other stored values."""
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    dataset.Rows, dataset.Columns = values.shape
    dataset.PixelData = values.astype(f"<{'i' if signed else 'u'}{dataset.BitsAllocated // 8}").tobytes()
    return dataset


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_every_depth_gives_the_same_picture(bits: int, signed: bool) -> None:
    picture = phantom.chest(1, (256, 256))
    top = 2**bits - 1
    values = np.rint(picture * top) - (2 ** (bits - 1) if signed else 0)
    dataset = stored(some(), values, bits, signed)
    dataset.VOILUTFunction = "LINEAR_EXACT"
    dataset.WindowCenter, dataset.WindowWidth = top / 2 - (2 ** (bits - 1) if signed else 0), top
    assert np.abs(gray(dataset) - picture).max() < 1.5 / top


def test_bits_above_the_high_bit_are_no_pixels() -> None:
    clean = some()
    dirty = some()
    values = np.frombuffer(dirty.PixelData, "<u2") | 0xF000  # an overlay in the unused bits, as old units write
    dirty.PixelData = values.tobytes()
    assert np.array_equal(gray(clean), gray(dirty))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_those_of_pydicom(function: str) -> None:
    dataset = some(
        WindowCenter=1500.0, WindowWidth=1200.0, VOILUTFunction=function, RescaleSlope=1.5, RescaleIntercept=-100.0
    )
    values = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
    scaled = apply_modality_lut(values, dataset)
    expected = apply_voi_lut(scaled, dataset)
    low = -100.0 if function != "SIGMOID" else 0.0
    high = 1.5 * 4095 - 100
    if function == "SIGMOID":  # pydicom maps onto the rescaled output range
        low = -100.0
    assert np.abs(gray(dataset) - (expected - low) / (high - low)).max() < 1e-4


def test_first_of_several_windows() -> None:
    assert np.array_equal(
        gray(some(WindowCenter=[1500, 300], WindowWidth=[1200, 100])), gray(some(WindowCenter=1500, WindowWidth=1200))
    )


def lut(values: list[int], first: int, bits: int) -> Sequence:
    table = Dataset()
    table.LUTDescriptor = [len(values) % 65536, first, bits]
    table.LUTData = values
    return Sequence([table])


def test_voi_lut_sequence_comes_before_the_window() -> None:
    table = [round(65535 * (number / 4095) ** 2) for number in range(4096)]
    values = np.frombuffer(some().PixelData, "<u2").reshape(512, 448)
    assert np.allclose(gray(some(VOILUTSequence=lut(table, 0, 16))), np.array(table)[values] / 65535, atol=1e-4)


def test_modality_lut_sequence_and_values_outside_it() -> None:
    table = list(range(1000, 3000))
    dataset = some(
        ModalityLUTSequence=lut(table, 1000, 16), WindowCenter=2000, WindowWidth=2000, VOILUTFunction="LINEAR_EXACT"
    )
    values = np.clip(np.frombuffer(dataset.PixelData, "<u2").reshape(512, 448), 1000, 2999)
    assert np.allclose(gray(dataset), (values - 1000.0) / 2000, atol=1e-4)


@pytest.mark.parametrize(
    ("photometric", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME1", None), ("MONOCHROME2", "INVERSE")]
)
def test_inverted_once_after_the_window(photometric: str, shape: str | None) -> None:
    plain = some(WindowCenter=1500, WindowWidth=1200)
    inverse = some(
        WindowCenter=1500, WindowWidth=1200, PhotometricInterpretation=photometric, PresentationLUTShape=shape
    )
    assert np.allclose(gray(inverse), 1 - gray(plain), atol=1e-4)


def test_padding_is_black_and_does_not_shift_the_window() -> None:
    picture = phantom.chest(1, (512, 512))
    values = np.rint(picture * 3000 + 500)
    padded = values.copy()
    padded[:, :100] = 4095
    dataset = stored(some(PhotometricInterpretation="MONOCHROME1"), padded, 12)
    dataset.PixelPaddingValue = 4095
    del dataset.WindowCenter, dataset.WindowWidth
    shown = gray(dataset)
    assert shown[:, :100].max() == 0
    assert shown[:, 100:].min() >= 0 and shown[:, 100:].std() > 0.1
    small = gray(dataset, full=False)
    assert small[:, 0].max() == 0


def test_pixels_are_made_square() -> None:
    assert gray(some(PixelAspectRatio=["2", "1"])).shape == (1024, 448)
    assert gray(some(PixelAspectRatio=["1", "2"])).shape == (512, 896)
    assert gray(some(PixelAspectRatio=["0", "0"])).shape == (512, 448)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("size", [(1955, 1841), (2048, 2500), (449, 450), (900, 1799)])
def test_small_is_the_mean_of_full(size: tuple[int, int], bits: int) -> None:
    """What the model sees is what a person sees, averaged; the last rows and columns count too."""
    values = phantom.chest(1, size) * (2**bits - 1)
    dataset = stored(some(size, WindowCenter=2 ** (bits - 1), WindowWidth=2**bits), values, bits)
    full, small = gray(dataset), gray(dataset, full=False)
    factor = 1 << ((min(size) // 224).bit_length() - 1)
    for position in ((0, 0), (-1, -1)):
        rows = slice(None, factor) if position[0] == 0 else slice((small.shape[0] - 1) * factor, None)
        columns = slice(None, factor) if position[1] == 0 else slice((small.shape[1] - 1) * factor, None)
        assert abs(float(full[rows, columns].mean()) - float(small[position])) < 1e-3
    assert small.shape == tuple(-(-side // factor) for side in size)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_lossless_encodings_give_the_same_picture(syntax: str) -> None:
    plain, packed = some((1333, 1111)), some((1333, 1111))
    packed.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(gray(plain), gray(packed))
    difference = np.abs(gray(plain, full=False) - gray(packed, full=False))
    assert difference.mean() < 0.01  # JPEG 2000 comes reduced by its own filter


@pytest.mark.parametrize("levels", [0, 1, 2, 5])
def test_jpeg_2000_of_fewer_resolutions_than_are_skipped(levels: int) -> None:
    plain, packed = some((2000, 1900)), some((2000, 1900))
    codestream = io.BytesIO()
    Image.fromarray(packed.pixel_array).save(codestream, "JPEG2000", num_resolutions=levels + 1, no_jp2=True)
    packed.PixelData = encapsulate([codestream.getvalue()])
    packed.file_meta.TransferSyntaxUID = JPEG2000Lossless
    packed.BitsStored, packed.HighBit = 16, 15
    assert np.abs(gray(plain, full=False) - gray(packed, full=False)).mean() < 0.005


def test_big_endian() -> None:
    plain, swapped = some(), some()
    swapped.PixelData = np.frombuffer(swapped.PixelData, "<u2").astype(">u2").tobytes()
    swapped.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert np.array_equal(gray(plain), gray(swapped))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"NumberOfFrames": 2}, Reason.MULTI_FRAME),
        ({"SamplesPerPixel": 3}, Reason.COLOUR),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.COLOUR),
        ({"Rows": 0}, Reason.DAMAGED),
        ({"Rows": 65535, "Columns": 65535}, Reason.TOO_LARGE),
        ({"BitsAllocated": 32, "BitsStored": 32}, Reason.ENCODING_UNSUPPORTED),
        ({"BitsStored": 20}, Reason.ENCODING_UNSUPPORTED),
        ({"PixelData": b""}, Reason.DAMAGED),
        ({"PixelData": b"\0" * 100}, Reason.DAMAGED),
    ],
)
def test_what_cannot_be_shown_is_refused_with_its_reason(attributes: dict[str, Any], reason: Reason) -> None:
    refusal = decode(some(**attributes))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason


def test_without_pixels() -> None:
    dataset = some()
    del dataset.PixelData
    refusal = decode(dataset)
    assert isinstance(refusal, Refusal) and refusal.reason is Reason.NO_PIXELS


def test_the_rendition_is_neutral_and_keeps_what_the_window_hides() -> None:
    narrow = render(some(WindowCenter=2000, WindowWidth=10))
    wide = render(some(WindowCenter=[1500, 300], WindowWidth=[4000, 100]))
    assert isinstance(narrow, Rendition) and isinstance(wide, Rendition)
    assert np.array_equal(narrow.values, wide.values)
    assert (int(wide.values.min()), int(wide.values.max())) == (0, 65535)
    assert len(wide.display.windows) == 2


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({}, (None, True)),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, (0.2, True)),
        ({"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.19, 0.19]}, (0.19, True)),
        ({"PixelSpacing": [0.15, 0.15], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.15, False)),
    ],
)
def test_how_large_a_pixel_is(attributes: dict[str, Any], told: tuple[float | None, bool]) -> None:
    dataset = some()
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        if keyword in dataset:
            delattr(dataset, keyword)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    rendition = render(dataset)
    assert isinstance(rendition, Rendition)
    assert (rendition.display.millimetres, rendition.display.at_detector) == told


def test_a_huge_film_is_averaged_down_for_people() -> None:
    dataset = some(ImagerPixelSpacing=[0.1, 0.1])
    dataset.PixelSpacing = None
    values = np.tile(np.arange(8192, dtype=np.uint16) % 4096, (600, 1))
    rendition = render(stored(dataset, values, 12))
    assert isinstance(rendition, Rendition)
    assert rendition.values.shape == (300, 4096)
    assert rendition.display.millimetres == pytest.approx(0.2)
