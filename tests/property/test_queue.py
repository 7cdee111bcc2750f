"""The queue as a state machine: whatever workers do, every job ends exactly once, and none is lost."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from edge.records import Job, Sha256, Urgency
from edge.state import arrivals, queue
from edge.state.store import open_store, transaction

LEASE = 60


class Queue(RuleBasedStateMachine):
    """Films arrive; workers claim, finish, fail, bury, die; time passes."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_store(Path(self.folder.name))
        self.store.execute("PRAGMA synchronous=OFF")  # speed only: no power cut here
        self.now = datetime(2026, 11, 23, tzinfo=UTC)
        self.added: set[int] = set()
        self.ended: list[int] = []

    @rule(urgency=st.sampled_from(list(Urgency)))
    def arrive(self, urgency: Urgency) -> None:
        with transaction(self.store):
            number = len(self.added) + 1
            arrival, _ = arrivals.add(self.store, f"1.{number}", Sha256(f"{number:064}"), "test", self.now, urgency)
            queue.add(self.store, arrival, urgency, self.now)
        self.added.add(arrival)

    @rule(target=leases)
    def claim(self) -> Job | None:
        with transaction(self.store):
            return queue.claim(self.store, self.now, LEASE)

    @rule(job=consumes(leases))
    def finish(self, job: Job | None) -> None:
        if job is not None and queue.finish(self.store, job):
            self.ended.append(job.arrival_id)

    @rule(job=consumes(leases))
    def bury(self, job: Job | None) -> None:
        if job is not None and queue.bury(self.store, job, "three attempts"):
            self.ended.append(job.arrival_id)

    @rule(job=leases)
    def fail(self, job: Job | None) -> None:
        if job is not None:
            queue.retry(self.store, job, "failed", self.now + timedelta(seconds=2))

    @rule(seconds=st.integers(1, 2 * LEASE))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def worker_restarts(self) -> None:
        queue.release(self.store, "the worker stopped")

    @invariant()
    def every_job_ends_at_most_once(self) -> None:
        assert len(self.ended) == len(set(self.ended))

    @invariant()
    def nothing_is_lost(self) -> None:
        assert queue.open_jobs(self.store, "assess") == len(self.added) - len(self.ended)

    def teardown(self) -> None:
        """What is left can still be claimed and ended, most urgent first."""
        queue.release(self.store, "end of test")
        self.now += timedelta(hours=1)
        while (job := queue.claim(self.store, self.now, LEASE)) is not None:
            assert queue.finish(self.store, job)
            self.ended.append(job.arrival_id)
        assert sorted(self.ended) == sorted(self.added)
        self.store.close()
        self.folder.cleanup()


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
