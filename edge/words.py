"""The sentences a person reads for each reason, and what to do next; fixed text, translated by key, never generated."""

from __future__ import annotations

from edge.records import Breakage, Carried, Concern, Fault, Outcome, Reason, Trouble, Update
from edge.validity.verdict import Cause

OUTCOMES: dict[Outcome, str] = {
    Outcome.IMMEDIATE: "Immediate",
    Outcome.SOON: "Soon",
    Outcome.ROUTINE: "Routine",
    Outcome.COULD_NOT_ASSESS: "AI could not assess",
}

REASONS: dict[Reason, tuple[str, str]] = {
    Reason.NOT_DICOM: (
        "This file is not a DICOM film.",
        "Send the film from the X-ray unit, or export it again as DICOM.",
    ),
    Reason.DAMAGED: ("The film is damaged and cannot be opened.", "Send it again from the X-ray unit."),
    Reason.ENCODING_UNSUPPORTED: (
        "The film is stored in a form this box cannot open.",
        "Set the X-ray unit to send uncompressed or losslessly compressed films, then send it again.",
    ),
    Reason.NO_PIXELS: ("The file has no picture in it.", "Send the film itself, not only its record."),
    Reason.NOT_A_RADIOGRAPH: (
        "This is not a plain X-ray film.",
        "A person reads it; this box only assesses chest X-rays.",
    ),
    Reason.FOR_PROCESSING: (
        "This is the raw exposure, before the X-ray unit prepared it for viewing.",
        "Set the X-ray unit to send the film “for presentation”, then send it again.",
    ),
    Reason.MULTI_FRAME: ("The file holds several pictures.", "Send each film as a file of its own."),
    Reason.COLOUR: ("The picture is in colour.", "Send the original gray-scale film."),
    Reason.TOO_LARGE: (
        "The picture is larger than any X-ray film.",
        "Check the export settings and send the original film.",
    ),
    Reason.TOO_SMALL: ("The picture is too small to assess.", "Send the original film, not a preview."),
    Reason.NOT_HUMAN: ("The film is of an animal.", "This box only assesses people."),
    Reason.NOT_CHEST: ("This is not a chest film.", "A person reads it. If it is a chest, correct the body part."),
    Reason.NOT_FRONTAL: (
        "This is not a frontal (PA or AP) view.",
        "A person reads it; send the frontal film too if one was taken.",
    ),
    Reason.AGE_UNKNOWN: (
        "The age of the patient is not known.",
        "Enter the age: the film is then assessed again by itself.",
    ),
    Reason.AGE_OUT_OF_SCOPE: ("The model has not been tested at this age.", "A person reads it."),
    Reason.UNREADABLE_EXPOSURE: (
        "The film is too dark, too bright or empty.",
        "Check the exposure and repeat the film if a person cannot read it either.",
    ),
    Reason.CROPPED: ("Part of the chest is missing.", "Repeat the film with both lungs in the picture."),
    Reason.WRONG_POLARITY: (
        "Black and white are exchanged.",
        "A person reads it; have the X-ray unit's export settings checked.",
    ),
    Reason.ROTATED: (
        "The film lies on its side or upside down.",
        "Turn it upright at the X-ray unit and send it again.",
    ),
    Reason.OUT_OF_DISTRIBUTION: (
        "The film is unlike those the model knows.",
        "A person reads it.",
    ),
    Reason.PROCESSING_FAILED: (
        "The box failed on this film three times.",
        "A person reads it; tell the technician.",
    ),
    Reason.AI_STOPPED: (
        "The box’s daily test of the AI has failed, so the AI is stopped.",
        "A person reads it; tell the technician. It is assessed by itself once the AI passes its test.",
    ),
}

TROUBLES: dict[Trouble, tuple[str, str]] = {
    Trouble.UNREACHABLE: (
        "It cannot be reached.",
        "Nothing to do while the network is away; otherwise check its address and whether it runs.",
    ),
    Trouble.TLS: ("The encrypted connection fails.", "Check the certificates and both clocks."),
    Trouble.KEPT_OUT: (
        "It does not let this box in.",
        "Have this box's AE title, or its user, allowed there.",
    ),
    Trouble.HANGS: ("It does not answer.", "Have it checked; the box tries again by itself."),
    Trouble.CLOSED: ("It ends the connection in the middle.", "Have it checked; the box tries again by itself."),
    Trouble.FULL: ("Its disk is full.", "Have room made there."),
    Trouble.BUSY: ("It is too busy.", "Nothing to do; the box tries again by itself."),
    Trouble.REJECTED: ("It refuses results.", "Have its log checked for why."),
    Trouble.UNSUPPORTED: (
        "It takes none of the kinds of result that it is sent.",
        "Choose other kinds in the settings (`send`).",
    ),
    Trouble.NOT_COMMITTED: ("It does not commit to keep results.", "Have its disk and its log checked."),
    Trouble.WARNED: ("It takes results with a warning.", "Have its log checked for why."),
    Trouble.NOT_MADE: ("This box could not make the result.", "Tell the technician: the box's log says why."),
    Trouble.GARBLED: ("It answers with what cannot be read.", "Have it checked; the box tries again by itself."),
    Trouble.NOT_CONFIGURED: (
        "It is not, or not rightly, in the settings.",
        "Correct the settings; `outpost check` says what is wrong.",
    ),
    Trouble.INTERRUPTED: ("The box stopped in the middle.", "Nothing to do; the box tries again by itself."),
}

BREAKS: dict[Breakage, tuple[str, str]] = {
    Breakage.MISSING: (
        "A record is missing.",
        "Somebody removed it, put others in its place, or exchanged their order; what comes after it is not proven.",
    ),
    Breakage.CHANGED: (
        "A record was changed after it was written.",
        "What it says is not what happened; what comes after it is not proven.",
    ),
    Breakage.CUT: (
        "Records are missing at the end.",
        "Somebody removed the latest records, or an old copy was put back.",
    ),
    Breakage.UNSEALED: (
        "The seal of the last record is missing.",
        "Somebody changed the database from outside the box.",
    ),
    Breakage.FOREIGN: (
        "The last record was not written by this box.",
        "Somebody added or exchanged records, or the box's key (ledger.key) is not the one it had.",
    ),
}

CHECKED: dict[Trouble, tuple[str, str]] = {
    **TROUBLES,
    Trouble.NOT_CONFIGURED: ("It is not, or not rightly, in the settings.", "Correct its address or its keys there."),
}
"""The same troubles, as `outpost check` says them."""

RIS: dict[Trouble, tuple[str, str]] = {
    **TROUBLES,
    Trouble.REJECTED: ("It refuses to give its orders.", "Have its log checked for why."),
    Trouble.UNSUPPORTED: (
        "It has no worklist to give.",
        "Check in the settings (`ris`) whether this is the right system.",
    ),
    Trouble.GARBLED: (
        "It answers with what cannot be read.",
        "Have it checked; the orders that could be read are used.",
    ),
}
"""The same troubles, of the system that orders come from."""

HUB: dict[Trouble, tuple[str, str]] = {
    **TROUBLES,
    Trouble.TLS: (
        "The encrypted connection fails.",
        "Check that this is still the same hub; if it is, enrol the box again.",
    ),
    Trouble.KEPT_OUT: (
        "The hub does not let this box in.",
        "Ask the programme for a new code, and type it: outpost enrol CODE.",
    ),
    Trouble.REJECTED: ("The hub does not take what this box sends.", "Have the hub updated, then this box."),
    Trouble.GARBLED: ("The hub answers with what this box cannot read.", "Have this box updated."),
    Trouble.NOT_CONFIGURED: (
        "No hub answers under that address.",
        "Correct the hub’s address in the settings (`hub.url`).",
    ),
}
"""The same troubles, of the hub."""

FAULTS: dict[Fault, tuple[str, str]] = {
    Fault.NOT_A_PARCEL: ("This is no parcel of Outpost.", "Choose the file that the other side has exported."),
    Fault.NOT_FOR_US: ("It was made for another receiver.", "Take it there, or have one made for this one."),
    Fault.UNKNOWN_SENDER: ("Its sender is not known here.", "Enrol the box with this hub first."),
    Fault.REVOKED: ("Its sender's key is no longer accepted.", "If that was a mistake, enrol the box again."),
    Fault.DAMAGED: (
        "It was changed on the way, or is not by whom it says.",
        "Export it again; what was taken before the damage is kept.",
    ),
    Fault.CUT: (
        "It ends before its end: the stick was pulled out too early, or is full.",
        "Export it again; what was whole is kept.",
    ),
    Fault.UNREADABLE: ("It was made by a newer Outpost.", "Update this one, then import it again."),
}
"""Why a parcel, or the rest of one, is not taken."""

CONCERNS: dict[Concern, tuple[str, str]] = {
    Concern.NO_FORM: (
        "Results of this kind are for the clinic's own systems.",
        "Nothing to do: the hub has the same result in other forms.",
    ),
    Concern.UNREADABLE: (
        "It cannot be read well enough to take out whose it is.",
        "If the hub shall see it, send the film again from the X-ray unit.",
    ),
    Concern.TEXT_NOT_FOUND: (
        "The X-ray unit says that there is text in the picture, and this box finds none to blank.",
        "If there is none, have “burned in annotation” corrected at the X-ray unit and send the film again.",
    ),
    Concern.TEXT_OVER_ANATOMY: (
        "There is text over the chest: to blank it would hide what the film is taken for.",
        "Have the X-ray unit write its texts beside the chest, or into the header only, and send the film again.",
    ),
    Concern.TOO_MUCH_TEXT: (
        "There is so much text in the picture that too little of the film would be left.",
        "Have the X-ray unit send the film without its texts.",
    ),
    Concern.TEXT_REMAINS: (
        "After the text was blanked there still is what looks like text.",
        "Have the X-ray unit send the film without its texts.",
    ),
}
"""Why something stays in the clinic that was meant for the hub."""

_AGAIN = "Order it again."
_MODEL = "Tell whoever made the model; the clinic goes on with the one it has."

ORDERS: dict[Carried, tuple[str, str]] = {
    Carried.DONE: ("The order was carried out.", "Nothing to do."),
    Carried.OVERTAKEN: ("Another order came before this one was carried out.", "Nothing to do."),
    Carried.ELSEWHERE: ("The order is for another clinic’s box, so it was refused.", _AGAIN),
    Carried.UNKNOWN: ("The box’s version does not know this order.", "Update the box, then order it again."),
    Carried.NOT_ORDERABLE: ("A hub may not set this on a box.", "Have the technician set it at the clinic."),
    Carried.BAD_VALUE: ("The setting cannot have this value.", "Correct the value and order it again."),
    Carried.LOCAL_CHOICE: (
        "The box’s own settings name the model that it runs.",
        "Have the technician take the line worker.bundle out, then order it again.",
    ),
    Carried.GONE: ("The hub no longer has the model that was ordered.", "Add it to the hub, then order it again."),
    Carried.NO_ROOM: (
        "The box’s disk has no room for the model.",
        "Have the technician make room, then order it again.",
    ),
    Carried.DAMAGED: ("What arrived is not the model that was ordered; the one before stays in use.", _AGAIN),
    Carried.NOT_A_BUNDLE: ("The model’s files are not what it says of itself; the one before stays in use.", _MODEL),
    Carried.UNSIGNED: (
        "Nobody whom the box believes has signed the model; the one before stays in use.",
        "Have it signed, or the signer’s key put into the box’s settings (worker.authorities).",
    ),
    Carried.OLDER: (
        "The model is older than the one in use, which stays.",
        "If that is meant, order the box to go back to the model before.",
    ),
    Carried.SELF_TEST: (
        "On this box the model does not compute what it shall; the one before stays in use.",
        _MODEL,
    ),
    Carried.NOTHING_BEFORE: ("There is no model before to which the box could go back.", "Nothing to do."),
}
"""What came of an order of the hub."""

NOT_SHOWN = "The film itself is not shown here."

UNSURE = "The AI is unsure."

PRELIMINARY = "Preliminary: a person decides."

AI_STOPPED = "The AI is stopped: `outpost check` says why. Films are still accepted."

DRIFT = "The films are no longer such as they were here. What to do stands on the page of the box."

FALLEN_BACK = (
    "The update did not work on this box: it runs the version before, and nothing is lost. Tell the technician."
)

_CALL = "Tell the technician this week."
UPDATES: dict[Update, tuple[str, str]] = {
    Update.BEGUN: ("Version %(version)s is being put on the box, which works as before.", "Leave the box switched on."),
    Update.READY: (
        "Version %(version)s is on the box and starts when the box does.",
        "Switch the box off and on again when nobody waits for a film.",
    ),
    Update.GOOD: ("Version %(version)s has shown on this box that it works.", "Nothing to do."),
    Update.FALLEN: ("Version %(version)s did not work on this box, so it runs the one before; nothing is lost.", _CALL),
    Update.CUT: ("An update was not finished; the box works as before.", _CALL),
    Update.OLDER: ("An update was refused: it is older than one that this box knows.", _CALL),
    Update.EXPIRED: (
        "An update was refused: it was only good until an earlier day than the box's clock shows.",
        "Have the technician compare the clock, and fetch the update again.",
    ),
    Update.FORGED: ("An update was refused: it is damaged, or not made for this box by whom it believes.", _CALL),
    Update.FAILED_BEFORE: ("An update was refused: that version did not work on this box before.", _CALL),
}
"""What came of the last update of the system, and what to do."""

MODELS: dict[Update, tuple[str, str]] = {
    Update.BEGUN: (
        "Version %(version)s of the model is on its way; the one before stays in use.",
        "Leave the box switched on.",
    ),
    Update.GOOD: ("Version %(version)s of the model has shown on this box that it works.", "Nothing to do."),
    Update.CUT: ("A newer model has not arrived whole; the one before stays in use.", _CALL),
    Update.OLDER: (ORDERS[Carried.OLDER][0], _CALL),
    Update.FORGED: ORDERS[Carried.NOT_A_BUNDLE],
    Update.UNSIGNED: ORDERS[Carried.UNSIGNED],
    Update.SELF_TEST: ORDERS[Carried.SELF_TEST],
}
"""What came of the last update of the model, and what to do."""

SENTENCES = (PRELIMINARY, AI_STOPPED, DRIFT, FALLEN_BACK, *(text for pair in BREAKS.values() for text in pair))
"""What else the box says; all of it is translated where it is shown."""

CAUSES = {
    Cause.POLARITY: (
        "Films come with black and white swapped.",
        "Have the X-ray unit's output checked; read these films yourselves until then.",
    ),
    Cause.DETECTOR: (
        "They look as if they came from another X-ray unit or detector.",
        "Ask what was changed at the X-ray unit. If it stays, have the AI accepted again with its films.",
    ),
    Cause.POPULATION: (
        "Other patients come than before: other ages, or other views.",
        "Ask why. If it stays so, have the AI accepted again with films of these patients.",
    ),
    Cause.MODEL: (
        "The films are as before, but they reach the AI in another way.",
        "Tell the technician: look for an update at the X-ray unit or at this box.",
    ),
    Cause.PREVALENCE: (
        "The films look as before, but the AI finds abnormal ones more, or less, often.",
        "Compare with what you see in patients: it may be an outbreak, or the AI may have become worse.",
    ),
    Cause.EXPOSURE: (
        "They are brighter or darker than before.",
        "Have the exposure settings of the X-ray unit checked.",
    ),
    Cause.UNCLEAR: (
        "The box cannot tell why.",
        "Ask what has changed at the X-ray unit, and read some films without the AI to compare.",
    ),
}
"""What each likely cause of a drift means, and what to do."""
