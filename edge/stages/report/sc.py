"""SC: the outcome as a picture, for a PACS that shows nothing else: Secondary Capture with all that must be known burned in.

Outcome in word and shape, what it rests on, and that it is preliminary, below the film as people are first shown it, with the heat
map over it where a finding is reported. No name is burned in: whose film it is stands in the header, in any script.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.uid import SecondaryCaptureImageStorage

from edge import words
from edge.records import Document, Finding, Outcome
from edge.stages.report import dicom, terms
from edge.stages.report.content import Content

SIDE = 1024
"""Of the picture's width when there is no film to show, and the least it may be, so that the words can be read."""
WHITE, BLACK = 255, 0

_MARGIN, _LARGE, _SMALL = 28, 44, 28
_SHAPES: dict[Outcome, tuple[tuple[float, float], ...]] = {
    Outcome.IMMEDIATE: ((0.5, 0), (1, 1), (0, 1)),
    Outcome.SOON: ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
}


def document(content: Content, preview: bytes | None, saliency: bytes | None) -> Document:
    """The picture of a result; `saliency` is the heat map to show, if any."""
    # a result is sent before its picture is rendered where that hangs; with and without it are two objects
    kind = "sc" if preview is not None else "sc without the film"
    ds = dicom.framed(content, "sc", SecondaryCaptureImageStorage, "OT", 9002)
    ds.SOPInstanceUID = content.uid(kind, "with the map" if saliency else "")
    pixels = picture(content, preview, saliency)
    ds.ConversionType = "SYN" if preview is None else "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.BurnedInAnnotation = "YES"
    ds.DerivationDescription = "AI triage of the film, preliminary: outcome, findings" + (
        ", heat map of the leading one" if saliency else ""
    )
    ds.ImageComments = words.PRELIMINARY
    ds.PatientOrientation = ds.Laterality = ""
    source = dicom.instance(dicom.film(content))
    source.PurposeOfReferenceCodeSequence = [dicom.code(terms.FILM_ASSESSED)]
    ds.SourceImageSequence = [source]
    ds.ReferencedSeriesSequence = dicom.series([dicom.film(content)], "ReferencedInstanceSequence")
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    ds.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    if pixels.ndim == 2:
        ds.WindowCenter, ds.WindowWidth = 128, 256
    raw = pixels.tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    dicom.made_at(ds, content.decided_at)
    ds.ContentDate = ds.DateOfSecondaryCapture = ds.InstanceCreationDate
    ds.ContentTime = ds.TimeOfSecondaryCapture = ds.InstanceCreationTime
    return dicom.document("sc", ds)


def picture(content: Content, preview: bytes | None, saliency: bytes | None) -> npt.NDArray[np.uint8]:
    """The film with its band of words: (rows, columns), and three colours where there is a heat map."""
    film = _film(preview, saliency)
    width = max(SIDE, film.width) if film is not None else SIDE
    lines = [line for text in _lines(content, preview) for line in _wrapped(text, width)]
    band = 2 * _MARGIN + _LARGE + _MARGIN // 2 + len(lines) * (_SMALL + 8)
    height = 0 if film is None else film.height
    mode = "L" if film is None else film.mode
    whole = Image.new(mode, (width, height + band))
    if film is not None:
        whole.paste(film, ((width - film.width) // 2, 0))
    draw = ImageDraw.Draw(whole)
    ink = WHITE if mode == "L" else (WHITE,) * 3
    top = height + _MARGIN
    _shape(draw, content.decision.outcome, _MARGIN, top, ink)
    draw.text((_MARGIN + _LARGE + 20, top - 4), words.OUTCOMES[content.decision.outcome], fill=ink, font=_font(_LARGE))
    top += _LARGE + _MARGIN // 2
    for line in lines:
        draw.text((_MARGIN, top), line, fill=ink, font=_font(_SMALL))
        top += _SMALL + 8
    return np.asarray(whole)


def _film(preview: bytes | None, saliency: bytes | None) -> Image.Image | None:
    if preview is None:
        return None
    with Image.open(io.BytesIO(preview)) as shown:
        film = shown.convert("L")
    if saliency is None:
        return film
    with Image.open(io.BytesIO(saliency)) as small:
        map_ = small.convert("RGBA").resize(film.size, Image.Resampling.BILINEAR)
    return Image.alpha_composite(film.convert("RGBA"), map_).convert("RGB")


def _lines(content: Content, preview: bytes | None) -> Iterator[str]:
    decision = content.decision
    yield words.PRELIMINARY
    if decision.refusal is not None:
        yield from words.REASONS[decision.refusal.reason]
    for finding in decision.findings:
        yield _figures(finding)
    if preview is None:
        yield "The film itself is not shown here."
    yield f"{content.algorithm} {content.version}, {content.decided_at:%Y-%m-%d %H:%M}"


def _figures(finding: Finding) -> str:
    low, value, high = (terms.percent(one) for one in (finding.low, finding.probability, finding.high))
    return f"{finding.label}: {value} % (95 % interval {low} to {high} %): {terms.level(finding).meaning}"


def _wrapped(text: str, width: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _font(_SMALL).getlength(longer) > width - 2 * _MARGIN:
            yield line
            longer = word
        line = longer
    yield line


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, so that no font need be installed."""
    return ImageFont.load_default(size)


def _shape(draw: ImageDraw.ImageDraw, outcome: Outcome, left: int, top: int, ink: int | tuple[int, ...]) -> None:
    """The outcome for those who do not read: triangle, diamond, disc, question mark."""
    box = (left, top, left + _LARGE, top + _LARGE)
    if outcome in _SHAPES:
        draw.polygon([(left + x * _LARGE, top + y * _LARGE) for x, y in _SHAPES[outcome]], fill=ink)
    elif outcome is Outcome.ROUTINE:
        draw.ellipse(box, fill=ink)
    else:
        draw.rectangle(box, outline=ink, width=4)
        draw.text((left + _LARGE / 2, top + _LARGE / 2), "?", fill=ink, font=_font(_LARGE - 8), anchor="mm")
