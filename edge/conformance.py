"""The tables of the DICOM conformance statement, made from what the code really negotiates, writes and records.

`python -m edge.conformance` writes them anew into `edge/conformance.md`, between the marks that name them; a test keeps both equal,
and others hold them against a live association.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pynetdicom
from pydicom._uid_dict import UID_dictionary
from pydicom.charset import python_encoding
from pydicom.uid import UID
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, build_context
from pynetdicom._globals import APPLICATION_CONTEXT_NAME
from pynetdicom.presentation import negotiate_unrestricted

from edge import atna, intake, ordering, ris
from edge.config import Config
from edge.records import Reason
from edge.sinks import commitment
from edge.sinks import dicom as sink
from edge.stages.deidentify import datasets
from edge.stages.deidentify import table as deidentify
from edge.stages.report import terms
from edge.vocabulary import IMPRESSIONS, OVERRIDES

PAGE = Path(__file__).with_name("conformance.md")
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

STORES = {
    "sr": "the AI's result (TID 1500)",
    "sc": "the result as a picture for viewers without SR",
    "gsps": "where the finding is",
    "assessment": "what a person made of the AI's result (TID 1500)",
}
"""What the box makes, by kind."""


def filled(page: str) -> str:
    """The page with every table made anew. Raises KeyError for a mark that names none."""
    return MARK.sub(lambda mark: "\n".join([mark[1].rstrip(), *TABLES[mark[2]](), mark[3]]), page)


@cache
def accepted() -> dict[str, tuple[str, ...]]:
    """Every SOP class that the DICOM port accepts, with the transfer syntaxes: all known ones are proposed to its own entity."""
    ae = intake.entity(Config())
    found = {}
    for syntax in known():
        contexts = [build_context(syntax, transfer) for transfer in ALL_TRANSFER_SYNTAXES]
        for number, context in enumerate(contexts):
            context.context_id = 2 * number + 1
        # a class of which the box is the user is only accepted from whoever asks to be its provider
        answers, _ = negotiate_unrestricted(contexts, ae.supported_contexts, {UID(syntax): (False, True)})
        taken = tuple(str(answer.transfer_syntax[0]) for answer in answers if answer.result == 0)
        if taken:
            found[syntax] = taken
    return found


def known() -> dict[str, str]:
    """Every SOP class of the standard, retired ones too, with its name."""
    classes = {uid: entry for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class"}
    return {uid: f"{entry[0] or uid}{' (retired)' if entry[3] else ''}" for uid, entry in classes.items()}


@cache
def served() -> tuple[str, ...]:
    """The SOP classes of those that are accepted for which the box has a service other than storage."""
    return tuple(str(context.abstract_syntax) for context in intake.entity(Config()).supported_contexts)


@cache
def storage() -> tuple[str, ...]:
    """The storage classes of those that are accepted."""
    return tuple(uid for uid in accepted() if uid not in served() and re.search(r"\bStorage\b(?! Comm)", known()[uid]))


def proposed() -> Mapping[str, tuple[UID, ...]]:
    """Every SOP class that the box proposes as a user, with the transfer syntaxes of each context."""
    wanted = [sink.VERIFICATION, *(sink.CLASSES[kind] for kind in STORES), commitment.CLASS]
    return {**{str(syntax): sink.PLAIN for syntax in wanted}, **ris.CONTEXTS}


def _services() -> Iterator[str]:
    """Table A.1-1: each service with the box's roles."""
    yield _head("SOP class", "UID", "user (SCU)", "provider (SCP)")
    for syntax in sorted({*proposed(), *served()}, key=lambda uid: known()[uid]):
        # what the port accepts for storage commitment are the answers to what the box asked for
        provides = syntax in accepted() and syntax != commitment.CLASS
        yield _row(known()[syntax], f"`{syntax}`", _yes(syntax in proposed()), _yes(provides))
    yield _row(
        f"every other Storage SOP class ({len(storage())} in all, below), and private ones", "", _yes(False), "yes"
    )


def _acceptance() -> Iterator[str]:
    """The contexts that the port accepts."""
    yield _head("SOP class", "UID", "transfer syntaxes", "role of the box")
    for syntax in served():
        role = "SCU, where the caller asks for the role of SCP" if syntax == commitment.CLASS else "SCP"
        yield _row(known()[syntax], f"`{syntax}`", _names(accepted()[syntax]), role)
    assert len({accepted()[uid] for uid in (*storage(), *_others())}) == 1, "all have the same transfer syntaxes"
    yield _row("every Storage SOP class, below", "", _names(accepted()[storage()[0]]), "SCP")


@cache
def _others() -> tuple[str, ...]:
    return tuple(uid for uid in accepted() if uid not in served() and uid not in storage())


def _unserved() -> Iterator[str]:
    """What is accepted as if for storage, because the library knows no service for it."""
    yield _head("SOP class", "UID")
    yield from (_row(known()[uid], f"`{uid}`") for uid in _others())


def _classes() -> Iterator[str]:
    yield _head("Storage SOP class", "UID")
    yield from (_row(known()[uid], f"`{uid}`") for uid in storage())


def _transfers() -> Iterator[str]:
    yield _head("transfer syntax", "UID")
    yield from (_row(UID(syntax).name, f"`{syntax}`") for syntax in accepted()[storage()[0]])


def _proposals() -> Iterator[str]:
    yield _head("SOP class", "UID", "transfer syntaxes, in this order", "for")
    uses = {
        sink.VERIFICATION: "`outpost check`, and the page of connections",
        ordering.WORKLIST: "the RIS's orders",
        commitment.CLASS: "storage commitment, where the settings ask for it",
    }
    for syntax, transfers in proposed().items():
        kinds = [STORES[kind] for kind in STORES if sink.CLASSES[kind] == syntax]
        yield _row(UID(syntax).name, f"`{syntax}`", _names(transfers), uses.get(syntax) or "; ".join(kinds))


def _implementation() -> Iterator[str]:
    ae, user = intake.entity(Config()), AE()
    yield _head("what", "value")
    yield _row("Implementation Class UID", f"`{pynetdicom.PYNETDICOM_IMPLEMENTATION_UID}`")
    yield _row("Implementation Version Name", f"`{pynetdicom.PYNETDICOM_IMPLEMENTATION_VERSION}`")
    yield _row("Application context", f"`{APPLICATION_CONTEXT_NAME}`")
    yield _row(
        "Largest PDU received, as provider", "no limit (0)" if not ae.maximum_pdu_size else str(ae.maximum_pdu_size)
    )
    yield _row("Largest PDU received, as user", str(user.maximum_pdu_size))
    yield _row("Associations at once, as provider", str(ae.maximum_associations))
    yield _row("Associations at once, as user", "one for each configured peer")
    yield _row(
        "Time-outs as provider: ACSE, DIMSE, network", f"{ae.acse_timeout}, {ae.dimse_timeout}, {ae.network_timeout} s"
    )
    yield _row(
        "Asynchronous operations, user identity, extended negotiation", "not offered; refused or ignored when proposed"
    )


def _settings() -> Iterator[str]:
    config = Config()
    yield _head("parameter", "setting", "default")
    yield _row("AE title of the box", "`intake.ae_title`", f"`{config.intake.ae_title}`")
    yield _row("DICOM port", "`intake.port`", f"`{config.intake.port}`")
    yield _row("Address it listens on", "`intake.host`", f"`{config.intake.host}`")
    yield _row("AE titles that may call", "`intake.calling_ae_titles`", "every one")
    yield _row(
        "Free space below which storage is refused", "`intake.disk_floor_mib`", f"{config.intake.disk_floor_mib} MiB"
    )
    yield _row("RIS that is asked for its worklist", "`ris.host`, `ris.port`, `ris.ae_title`", "none")
    yield _row("Peers that results are sent to", "`[[sinks]]`", "none")


def _charsets() -> Iterator[str]:
    yield _head("Specific Character Set", "read", "written")
    for name in python_encoding:
        if name.startswith("ISO") or name in {"GB18030", "GBK"}:
            yield _row(f"`{name}`", "yes", "yes" if name == "ISO_IR 192" else "–")


def _codes() -> Iterator[str]:
    """Every code of the project's own scheme that can be in what it writes."""
    held = [value for value in vars(terms).values() if isinstance(value, terms.Term)]
    held += [*terms.OUTCOMES.values(), *terms.KINDS.values(), *map(terms.why_not, Reason)]
    held += [terms.chosen(key) for key in (*IMPRESSIONS, *OVERRIDES)]
    yield _head("code", "meaning")
    own = {term.code: term.meaning for term in held if term.scheme == terms.OUTPOST}
    yield from (_row(f"`{code}`", meaning) for code, meaning in sorted(own.items()))


def _events() -> Iterator[str]:
    yield _head("event of the ledger", "EventID", "action", "EventTypeCode", "outcome", "who")
    for event, kind in atna.KINDS.items():
        family = f"{kind.family.value} {atna.DCM[kind.family]}"
        types = f"{kind.type} {atna.DCM[kind.type]}" if kind.type else ""
        yield _row(
            f"`{event.value}`: {kind.says}",
            family,
            kind.action,
            types,
            str(kind.outcome),
            "person" if kind.person else "process",
        )


def _profile() -> Iterator[str]:
    """The de-identification profile and its options, as they are written into every object."""
    yield _head("code (DCM)", "profile or option", "written into")
    for (value, meaning), where in datasets.SAYS.items():
        yield _row(value, meaning, where)


def _leaving() -> Iterator[str]:
    """Every attribute that leaves in some form."""
    yield _head("tag", "attribute", "Basic Profile", "options", "here", "kept only if it is")
    for row in deidentify.rows():
        if row.action != "X":
            kept = "" if row.values in ("-", "recurse") else f"`{row.values}`".replace("|", "\\|")
            yield _row(f"({row.tag[:4]},{row.tag[4:]})", row.keyword, row.standard, row.option, row.action, kept)


def _names(transfers: Iterable[str]) -> str:
    return (
        "all in the table below"
        if len(list(transfers)) > 8
        else "; ".join(f"{UID(one).name} `{one}`" for one in transfers)
    )


def _yes(told: bool) -> str:
    return "yes" if told else "–"


def _head(*cells: str) -> str:
    return "\n".join((_row(*cells), _row(*("---" for _ in cells))))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "services": _services,
    "acceptance": _acceptance,
    "classes": _classes,
    "unserved": _unserved,
    "transfers": _transfers,
    "proposals": _proposals,
    "implementation": _implementation,
    "settings": _settings,
    "charsets": _charsets,
    "codes": _codes,
    "events": _events,
    "profile": _profile,
    "leaving": _leaving,
}
"""The tables, by the names of their marks."""


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
