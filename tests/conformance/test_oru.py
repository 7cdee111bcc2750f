"""HL7 v2 by a program of another project: hl7apy, in its strict mode, takes every message that leaves."""

from __future__ import annotations

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import Phase, example, given, settings

from edge.records import Read, Source
from edge.stages import report
from tests import results


@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
@example(results.example(), results.confirmed())
@given(results.sources(), results.reads())
def test_every_message_passes_the_strict_parser(source: Source, read: Read) -> None:
    for document in report.documents(source) + report.assessment(source, read):
        if document.kind == "oru":
            message = parse_message(document.data.decode(), validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
            assert message.validate()
            assert message.msh.msh_10.value == document.uid
