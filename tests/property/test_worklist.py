"""The promises of the worklist as people see it: the shown list, for any arrivals, outcomes, models and clock."""

from __future__ import annotations

import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.records import Arm, Assessment, Decision, Finding, Header, Outcome, Protocol, Reason, Refusal, Unit, Urgency
from edge.state import acceptances, arrivals, results, trials
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


Came = tuple[int, Urgency, Outcome | None, str]
"""So many minutes before noon, ordered as urgent as that, assessed as that, by that model."""


def shown(
    listed: list[Came],
    accepted: bool,
    at: datetime,
    arms: list[Arm | None] | None = None,
    raised: tuple[bool, bool] = (True, True),
) -> list[ranking.Row]:
    """The rows of a box to which these films came; in a trial, each in its arm or in none.

    `raised`: whether the protocol, and whether the site's policy now, raises what the AI calls immediate in both arms.
    """
    with tempfile.TemporaryDirectory() as folder, closing(open_store(Path(folder))) as store:
        with transaction(store):
            if accepted:
                acceptances.sign(store, "2.25.1", "balanced", "Lead", NOON)
            running = None
            if arms is not None:
                protocol = Protocol("Order", Unit.FILM, 40, None, raised[0], "2.25.1", "balanced", "m")
                running = trials.register(store, protocol, bytes(32), "Lead", NOON)
            for number, (minutes, urgency, outcome, device) in enumerate(listed):
                received = NOON - timedelta(minutes=minutes)
                film, _ = arrivals.add(store, f"1.2.{number}", f"{number:064x}", "X", received, urgency)  # type: ignore[arg-type]
                if running is not None and arms is not None:
                    arm = arms[number]
                    place = None if arm is None else number
                    trials.allocate(store, running, film, NOON.date(), place, arm, "" if arm else "twice")
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
        return ranking.build(store, at, CAP, immediate_raised=raised[1]).rows


@settings(max_examples=60)
@given(films, st.booleans(), st.integers(-600, 600))
def test_the_shown_order_keeps_every_promise(listed: list[Came], accepted: bool, minutes: int) -> None:
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


@settings(max_examples=60)
@given(
    films.flatmap(
        lambda listed: st.tuples(
            st.just(listed), st.lists(st.sampled_from([None, *Arm]), min_size=len(listed), max_size=len(listed))
        )
    ),
    st.tuples(st.booleans(), st.booleans()),
    st.integers(-600, 600),
)
def test_in_a_trial_both_arms_keep_every_promise(
    came: tuple[list[Came], list[Arm | None]], raised: tuple[bool, bool], minutes: int
) -> None:
    """Whatever arm a film is in, what must be raised is; and in order of arrival nothing else goes ahead."""
    (listed, arms), at = came, NOON + timedelta(minutes=minutes)
    rows = shown(listed, True, at, arms, raised)
    assert sorted(row.film.arrival.id for row in rows) == list(range(1, len(listed) + 1))

    def arrived(row: ranking.Row) -> tuple[datetime, int]:
        return row.film.arrival.received_at, row.film.arrival.id

    def said(row: ranking.Row) -> Outcome | None:
        return row.film.decision.outcome if row.film.decision else None

    def must(row: ranking.Row) -> bool:
        """Raised in both arms: ordered as urgent, not assessed, or immediate where the protocol or the policy says so."""
        immediate = said(row) is Outcome.IMMEDIATE and ranking.is_ranked(row.film, "2.25.1") and any(raised)
        return (
            row.film.arrival.urgency is not Urgency.ROUTINE
            or said(row) in (None, Outcome.COULD_NOT_ASSESS)
            or immediate
        )

    by_arrival = sorted(rows, key=arrived)
    for place, row in enumerate(rows):
        if arrived(row)[0] <= at - CAP:
            assert place <= by_arrival.index(row), "beyond the cap no film is later than in order of arrival"
        arm = arms[row.film.arrival.id - 1]
        for before in rows[:place]:
            if arrived(before) > arrived(row):  # overtaken
                its = arms[before.film.arrival.id - 1]
                by_ai = its is not Arm.ARRIVAL_ORDER and said(before) in (Outcome.IMMEDIATE, Outcome.SOON)
                assert must(before) or (by_ai and ranking.is_ranked(before.film, "2.25.1")), "only what is raised"
            if said(row) in (None, Outcome.COULD_NOT_ASSESS) and not before.overdue:
                calm = said(before) is Outcome.ROUTINE or (
                    its_turn(arms[before.film.arrival.id - 1], said(before)) and not must(before)
                )
                assert not calm or before.film.arrival.urgency is not Urgency.ROUTINE, f"never below routine ({arm})"


def its_turn(arm: Arm | None, outcome: Outcome | None) -> bool:
    """Whether a film of this arm waits its turn though the AI would have raised it."""
    return arm is Arm.ARRIVAL_ORDER and outcome in (Outcome.IMMEDIATE, Outcome.SOON)
