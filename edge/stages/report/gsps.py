"""GSPS: the region drawn over the film itself, by any viewer that knows Grayscale Softcopy Presentation States (PS3.3 A.33.1).

Made where there is a region, and where the film's grays can be said in numbers: a presentation state stands in the place of all
that the film says of its own display (PS3.4 N.2), so one that said less would show the film wrong.
"""

from __future__ import annotations

import numpy as np
from highdicom.pr import GraphicLayer, GraphicObject, TextObject
from pydicom import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from edge import words
from edge.records import Document, Finding, Grays
from edge.stages.report import dicom, terms
from edge.stages.report.content import Content
from edge.stages.report.region import Point

LAYER = "OUTPOST"


def document(content: Content, grays: Grays, leading: Finding, region: tuple[Point, ...]) -> Document:
    """The presentation state of a result with a region."""
    ds = dicom.framed(content, "gsps", GrayscaleSoftcopyPresentationStateStorage, "PR", 9003)
    dicom.made_at(ds, content.decided_at)
    ds.Laterality = ""
    ds.PresentationCreationDate, ds.PresentationCreationTime = ds.InstanceCreationDate, ds.InstanceCreationTime
    ds.ContentLabel, ds.ContentDescription = "OUTPOST", words.PRELIMINARY
    ds.ContentCreatorName = ""
    ds.ReferencedSeriesSequence = dicom.series([dicom.film(content)], "ReferencedImageSequence")
    ds.GraphicLayerSequence = [GraphicLayer(LAYER, 1, "AI triage, preliminary")]
    ds.GraphicAnnotationSequence = [_annotation(content, leading, region)]
    ds.DisplayedAreaSelectionSequence = [_whole(content, grays)]
    if grays.rescale is not None:
        ds.RescaleIntercept, ds.RescaleSlope = (_decimal(one) for one in grays.rescale)
        ds.RescaleType = "US"
    if grays.window is not None:
        window = Dataset()
        window.WindowCenter, window.WindowWidth = (_decimal(one) for one in grays.window)
        if grays.function:
            window.VOILUTFunction = grays.function
        ds.SoftcopyVOILUTSequence = [window]
    ds.PresentationLUTShape = "INVERSE" if grays.inverted else "IDENTITY"
    return dicom.document("gsps", ds)


def _annotation(content: Content, leading: Finding, region: tuple[Point, ...]) -> Dataset:
    ds = Dataset()
    ds.ReferencedImageSequence = [dicom.instance(dicom.film(content))]
    ds.GraphicLayer = LAYER
    tracked = f"{leading.label} {content.uuid('track', f'finding {leading.finding}')}"
    ds.GraphicObjectSequence = [
        GraphicObject(
            "POLYLINE",
            np.array(region),
            "PIXEL",
            tracking_id=tracked,
            tracking_uid=content.uid("track", f"finding {leading.finding}"),
        )
    ]
    left, top = (min(point[axis] for point in region) for axis in (0, 1))
    text = f"{leading.label} {terms.percent(leading.probability)} %\r\n{words.PRELIMINARY}"
    ds.TextObjectSequence = [TextObject(text, "PIXEL", anchor_point=(left, top), anchor_point_visible=False)]
    return ds


def _whole(content: Content, grays: Grays) -> Dataset:
    """The whole film, as large as the screen has room for (PS3.3 C.10.4)."""
    ds = Dataset()
    ds.ReferencedImageSequence = [dicom.instance(dicom.film(content))]
    ds.DisplayedAreaTopLeftHandCorner = [1, 1]
    ds.DisplayedAreaBottomRightHandCorner = [content.columns, content.rows]
    ds.PresentationSizeMode = "SCALE TO FIT"
    ds.PresentationPixelAspectRatio = list(grays.aspect)
    return ds


def _decimal(value: float) -> str:
    """DS, in at most 16 characters (PS3.5 6.2)."""
    return next(text for text in (f"{value:.{digits}g}" for digits in range(10, 0, -1)) if len(text) <= 16)
