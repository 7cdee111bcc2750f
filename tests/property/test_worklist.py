"""The promises of the worklist as people see it: the shown list, for any arrivals, outcomes, models and clock."""

from __future__ import annotations

import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.records import Assessment, Decision, Finding, Header, Outcome, Reason, Refusal, Urgency
from edge.state import acceptances, arrivals, results
from edge.state.store import open_store, transaction
from web import ranking

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CAP = timedelta(hours=4)
FINDING = Finding("tb", "Tuberculosis", "SCT", "56717001", 0.7, 0.6, 0.8, "balanced", 0.3, 0.7)

films = st.lists(
    st.tuples(
        st.integers(0, 12 * 60),
        st.sampled_from(Urgency),
        st.sampled_from([None, *Outcome]),
        st.sampled_from(["2.25.1", "2.25.2"]),
    ),
    max_size=12,
)


def shown(listed: list[tuple[int, Urgency, Outcome | None, str]], accepted: bool, at: datetime) -> list[ranking.Row]:
    """The rows of a box to which these films came, so many minutes before noon each."""
    with tempfile.TemporaryDirectory() as folder, closing(open_store(Path(folder))) as store:
        with transaction(store):
            if accepted:
                acceptances.sign(store, "2.25.1", "balanced", "Lead", NOON)
            for number, (minutes, urgency, outcome, device) in enumerate(listed):
                received = NOON - timedelta(minutes=minutes)
                film, _ = arrivals.add(store, f"1.2.{number}", f"{number:064x}", "X", received, urgency)  # type: ignore[arg-type]
                if outcome is not None:
                    refused = outcome is Outcome.COULD_NOT_ASSESS
                    decision = Decision(
                        outcome,
                        () if refused else (FINDING,),
                        "m",
                        device,
                        Refusal(Reason.CROPPED) if refused else None,
                    )
                    results.add(store, film, 1, Assessment(Header(), decision, None, {}), NOON)
        return ranking.build(store, at, CAP).rows


@settings(max_examples=60)
@given(films, st.booleans(), st.integers(-600, 600))
def test_the_shown_order_keeps_every_promise(
    listed: list[tuple[int, Urgency, Outcome | None, str]], accepted: bool, minutes: int
) -> None:
    at = NOON + timedelta(minutes=minutes)
    rows = shown(listed, accepted, at)
    assert sorted(row.film.arrival.id for row in rows) == list(range(1, len(listed) + 1))
    assert [row.position for row in rows] == list(range(1, len(listed) + 1))

    def arrived(row: ranking.Row) -> tuple[datetime, int]:
        return row.film.arrival.received_at, row.film.arrival.id

    by_arrival = sorted(rows, key=arrived)
    for place, row in enumerate(rows):
        if arrived(row)[0] <= at - CAP:
            assert place <= by_arrival.index(row), "beyond the cap no film is later than in order of arrival"
        outcome = row.film.decision.outcome if row.film.decision else None
        for before in rows[:place]:
            if arrived(before) > arrived(row):  # overtaken
                said = before.film.decision.outcome if before.film.decision else None
                raised = accepted and (
                    said in (None, Outcome.COULD_NOT_ASSESS)
                    or (said is not Outcome.ROUTINE and ranking.is_ranked(before.film, "2.25.1"))
                )
                assert before.film.arrival.urgency is not Urgency.ROUTINE or raised, "only what is raised goes ahead"
            if accepted and outcome in (None, Outcome.COULD_NOT_ASSESS) and not before.overdue:
                calm = before.film.decision is not None and before.film.decision.outcome is Outcome.ROUTINE
                assert not calm or before.film.arrival.urgency is not Urgency.ROUTINE, (
                    "what could not be assessed is never below routine, even one that came earlier"
                )
