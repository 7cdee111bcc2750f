"""SC: the outcome as a picture, for a PACS that shows nothing else: Secondary Capture with all that must be known burned in.

Outcome in word and shape, what it rests on, and that it is preliminary, below the film as people are first shown it, with the heat
map over it where a finding is reported. No name is burned in: whose film it is stands in the header, in any script. Toward the hub
goes a banner: the words without film and day, so that nothing has to be cut out of it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator

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
    told = "AI triage of the film, preliminary: outcome, findings" + (
        ", heat map of the leading one" if saliency else ""
    )
    lines = [*_lines(content), *(() if preview is not None else (words.NOT_SHOWN,)), _made(content)]
    return _captured(content, "sc", picture(content, _film(preview, saliency), lines), preview is not None, told)


def banner(content: Content) -> Document:
    """The words alone, without the film and without a day: nothing in this picture says whose film it is."""
    lines = [*_lines(content), words.NOT_SHOWN, f"{content.algorithm} {content.version}"]
    return _captured(content, "banner", picture(content, None, lines), False, "AI triage of the film, preliminary")


def _captured(content: Content, kind: str, pixels: npt.NDArray[np.uint8], film: bool, told: str) -> Document:
    ds = dicom.framed(content, kind, SecondaryCaptureImageStorage, "OT", 9005 if kind == "banner" else 9002)
    # a result is sent before its picture is rendered where that hangs, and a picture may be rendered again: each is its own object
    ds.SOPInstanceUID = content.uid(kind, hashlib.sha256(pixels.tobytes()).hexdigest())
    ds.ConversionType = "WSD" if film else "SYN"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    # whether it has what says whose it is and when (PS3.3 C.7.6.1.1.7), not whether it has words
    ds.BurnedInAnnotation = "NO" if kind == "banner" else "YES"
    ds.DerivationDescription = told
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
    return dicom.document(kind, ds)


def picture(content: Content, film: Image.Image | None, texts: Iterable[str]) -> npt.NDArray[np.uint8]:
    """The film, if it is shown, with its band of words: (rows, columns), and three colours where there is a heat map."""
    width = max(SIDE, film.width) if film is not None else SIDE
    lines = [line for text in texts for line in _wrapped(text, width)]
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


def _lines(content: Content) -> Iterator[str]:
    decision = content.decision
    yield words.PRELIMINARY
    if decision.refusal is not None:
        yield from words.REASONS[decision.refusal.reason]
    for finding in decision.findings:
        yield _figures(finding)


def _made(content: Content) -> str:
    return f"{content.algorithm} {content.version}, {content.decided_at:%Y-%m-%d %H:%M}"


def _figures(finding: Finding) -> str:
    low, value, high = (terms.percent(one) for one in (finding.low, finding.probability, finding.high))
    told = f"{finding.label}: {value} % (95 % interval {low} to {high} %): {terms.level(finding).meaning}"
    return f"{told}. {words.UNSURE}" if finding.unsure else told


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
