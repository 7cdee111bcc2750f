"""The coded choices that people make about a film: what they see, and why they differ from the AI.

A choice has SNOMED CT's code where it has the concept, else this project's own (scheme 99OUTPOST, PS3.16 8.1). The order is that of
the screen. Codes are kept for good; texts may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Sight(StrEnum):
    """What an impression says as a whole."""

    NORMAL = "normal"
    ABNORMAL = "abnormal"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Choice:
    """One thing that a person may say with one touch."""

    key: str
    text: str
    scheme: str
    code: str


@dataclass(frozen=True)
class Impression(Choice):
    """What a person sees on a film."""

    sight: Sight


OWN = "99OUTPOST"
SNOMED = "SCT"
LOINC = "LN"

IMPRESSIONS: dict[str, Impression] = {
    choice.key: choice
    for choice in (
        Impression("normal", "Nothing abnormal", SNOMED, "168733007", Sight.NORMAL),
        Impression("consolidation", "Consolidation or pneumonia", SNOMED, "95436008", Sight.ABNORMAL),
        Impression("effusion", "Fluid in the chest", SNOMED, "60046008", Sight.ABNORMAL),
        Impression("pneumothorax", "Air in the chest (pneumothorax)", SNOMED, "36118008", Sight.ABNORMAL),
        Impression("heart", "Heart too large", SNOMED, "8186001", Sight.ABNORMAL),
        Impression("mass", "Lump or mass", SNOMED, "309529002", Sight.ABNORMAL),
        Impression("tuberculosis", "Signs of tuberculosis", SNOMED, "154283005", Sight.ABNORMAL),
        Impression("abnormal", "Something else abnormal", SNOMED, "168734001", Sight.ABNORMAL),
        Impression("unsure", "I cannot tell", OWN, "unsure", Sight.UNSURE),
    )
}

OVERRIDES: dict[str, Choice] = {
    choice.key: choice
    for choice in (
        Choice("missed", "The AI missed something", OWN, "missed"),
        Choice("nothing", "There is nothing where the AI sees something", OWN, "nothing"),
        Choice("patient", "The patient is more ill, or less, than the film shows", OWN, "patient"),
        Choice("known", "It is known or old", OWN, "known"),
        Choice("quality", "The film is not good enough", OWN, "quality"),
        Choice("mixed_up", "Wrong patient or wrong film", OWN, "mixed_up"),
    )
}
"""Why a person puts another outcome in the place of the AI's."""

NOT_ASSESSED = Choice("not_assessed", "The AI could not assess the film", OWN, "not_assessed")
"""The reason that needs no question."""

ADVICE: dict[str, Choice] = {
    choice.key: choice
    for choice in (
        Choice("act_now", "Act now: this cannot wait", OWN, "act_now"),
        Choice("send", "Send the patient to a hospital", OWN, "send"),
        Choice("sputum", "Test the sputum for tuberculosis", OWN, "sputum"),
        Choice("repeat", "Take the film again: it is not good enough", OWN, "repeat"),
        Choice("later_film", "Take another film in some weeks", OWN, "later_film"),
        Choice("compare", "Hold it against what you see of the patient", OWN, "compare"),
    )
}
"""What a teleradiologist asks the clinic to do."""

PROCEDURES: dict[str, Choice] = {
    choice.key: choice
    for choice in (
        Choice("chest", "Chest X-ray", LOINC, "30745-4"),
        Choice("chest_pa", "Chest X-ray, standing (PA)", LOINC, "24648-8"),
        Choice("chest_ap", "Chest X-ray, lying or sitting (AP)", LOINC, "36572-6"),
        Choice("chest_two", "Chest X-ray, two views", LOINC, "36643-5"),
    )
}
"""What can be ordered at the tablet; the English text is what the X-ray unit shows."""
