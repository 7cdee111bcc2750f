"""Gate: whether the model may speak about this film; the header's part. The picture's part is the model's own (`Model.doubt`)."""

from __future__ import annotations

import re

from edge.records import Header, Reason, Refusal

_RADIOGRAPHS = {
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7.2",  # Multi-frame Grayscale Byte Secondary Capture
    "1.2.840.10008.5.1.4.1.1.7.3",  # Multi-frame Grayscale Word Secondary Capture
}
_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"  # Digital X-Ray Image Storage - For Processing
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MODALITIES = {"CR", "DX", "RG"}
_OURS = "Outpost"
"""Manufacturer of this project's own results, which a PACS may forward to the box like films."""

_CHEST = re.compile(r"CHEST|THORA|TORAX|LUNG|POUMON|PULM|KIFUA|الصدر", re.IGNORECASE)
_OTHER_PART = re.compile(
    r"HIP|PELVI|EXTREMIT|LEG|ARM|HAND|FOOT|KNEE|ANKLE|WRIST|ELBOW|SHOULDER|SKULL|HEAD|SPINE|ABDOM|BREAST|TOOTH|JAW|"
    r"TIBIA|FEMUR|HUMERUS|NECK|WHOLE ?BODY|FINGER|TOE|CLAVICLE|RIB|STERNUM|PATELLA|CALCANEUS|MANDIB|ORBIT|SINUS",
    re.IGNORECASE,
)
_FRONTAL = re.compile(r"\b(PA|AP|AP[ _]?SUPINE|AP[ _]?ERECT|FRONTAL)\b", re.IGNORECASE)
_NOT_FRONTAL = re.compile(
    r"\b(LL|RL|LAT|LATERAL|LAO|RAO|LPO|RPO|OBL\w*|LLD|RLD|DECUB\w*|LORDOTIC|XTL|RLO|LLO|LMO)\b", re.IGNORECASE
)
_HUMAN = re.compile(r"^$|HUMAN|HOMO SAPIENS", re.IGNORECASE)


def admit(header: Header) -> Refusal | None:
    """Refuse what its header says is no frontal chest radiograph of a person; silence is not held against a film.

    Age is judged apart, by the model's domains, because a person may supply it.
    """
    if header.SOPClassUID == _FOR_PROCESSING or header.PresentationIntentType == "FOR PROCESSING":
        return Refusal(Reason.FOR_PROCESSING, f"presentation intent {header.PresentationIntentType!r}")
    capture = header.SOPClassUID.startswith(_SECONDARY_CAPTURE) and header.Modality in ("OT", "SC", "")
    if header.SOPClassUID not in _RADIOGRAPHS or not (header.Modality in _MODALITIES or capture):
        return Refusal(
            Reason.NOT_A_RADIOGRAPH, f"SOP class {header.SOPClassUID or 'missing'}, modality {header.Modality!r}"
        )
    if header.Manufacturer == _OURS:
        return Refusal(Reason.NOT_A_RADIOGRAPH, "a result of this box, or of another, that was sent back")
    if not _HUMAN.search(header.PatientSpeciesDescription):
        return Refusal(Reason.NOT_HUMAN, f"species {header.PatientSpeciesDescription!r}")
    if not _CHEST.search(header.BodyPartExamined) and _OTHER_PART.search(header.BodyPartExamined):
        return Refusal(Reason.NOT_CHEST, f"body part {header.BodyPartExamined!r}")
    if not _FRONTAL.search(header.ViewPosition) and _NOT_FRONTAL.search(header.ViewPosition):
        return Refusal(Reason.NOT_FRONTAL, f"view position {header.ViewPosition!r}")
    return None
