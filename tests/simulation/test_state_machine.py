"""Hypothesis chooses what happens next, and finds the shortest way to what must not happen."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from s2frames.retry import Retry
from s2frames.settings import AppendSettings, Endpoints, ReadSettings, Settings
from simulation.commander import Commander
from simulation.driver import Actor
from simulation.faults import Faults
from simulation.readers import Reader
from simulation.scenario import build_stage
from simulation.writers import Writer, WriterPlan

_LIFETIME = 2000.0


class Sessions(RuleBasedStateMachine):
    """Two writers, two readers and somebody who gives commands, on one stream."""

    @initialize(
        seed=st.integers(0, 2**32),
        is_exclusive=st.booleans(),
        burst=st.sampled_from([None, 1, 3]),
    )
    def begin(self, seed: int, is_exclusive: bool, burst: int | None) -> None:
        self.random = Random(seed)
        self.faults = Faults(self.random, 0, True, 0.05)
        client = Settings(
            endpoints=Endpoints.at("http://localhost"), retry=Retry(max_seconds=600.0)
        )
        self.stage = build_stage(self.random, self.faults, client)
        append = AppendSettings(exclusive=is_exclusive, burst_batches=burst)
        # An exclusive writer is alone.
        self.writers = [
            self._make_writer(f"writer{number}", append) for number in range(2 - is_exclusive)
        ]
        self.readers = [
            Reader(self.stage, f"reader{number}", self.random, ReadSettings(follow=True), False)
            for number in range(2)
        ]
        self.commander = Commander(
            self.stage, "commander", self.random, 0, 1.0, trims=True, fences=True
        )
        actors: tuple[Actor, ...] = (*self.writers, *self.readers)
        for actor in actors:
            actor.start()

    def _make_writer(self, name: str, append: AppendSettings) -> Writer:
        # The last message is sent when all is over, so that the session stays open until then.
        plan = WriterPlan(settings=append, sizes=[0] * 40, max_pause=1e9, crashes=[])
        return Writer(self.stage, name, plan, self.random)

    @rule(which=st.integers(0, 1), count=st.integers(1, 5))
    def append(self, which: int, count: int) -> None:
        writer = self.writers[which % len(self.writers)]
        if writer.num_unsent > count:
            writer.submit(count)

    @rule(percent=st.sampled_from([0, 50, 100]))
    def make_the_network(self, percent: int) -> None:
        """From now on connections are better or worse."""
        self.faults.percent = percent

    @rule(reads=st.booleans())
    def cut(self, reads: bool) -> None:
        self.stage.network.cut("GET" if reads else "POST")

    @rule(seconds=st.sampled_from([0.1, 4.0, 30.0]))
    def stop_the_service(self, seconds: float) -> None:
        self.stage.network.go_down(seconds)

    @rule(which=st.integers(0, 1), seconds=st.sampled_from([1.0, 30.0]))
    def stall(self, which: int, seconds: float) -> None:
        self.readers[which].be_busy(seconds)

    @rule()
    def trim(self) -> None:
        self.commander.trim()

    @rule()
    def fence(self) -> None:
        self.commander.fence()

    @rule(which=st.integers(0, 1))
    def crash_a_writer(self, which: int) -> None:
        self.writers[which % len(self.writers)].crash()

    @rule(which=st.integers(0, 1))
    def crash_a_reader(self, which: int) -> None:
        self.readers[which].crash()

    @rule(which=st.integers(0, 1))
    def resume_a_reader(self, which: int) -> None:
        self.readers[which].stop()

    @rule(seconds=st.sampled_from([0.01, 0.5, 6.0, 60.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.stage.world.pass_time(seconds)

    @invariant()
    def the_stream_is_right(self) -> None:
        if hasattr(self, "stage"):
            self.stage.oracle.check()

    def teardown(self) -> None:
        """The network heals, and everything comes to its end."""
        if not hasattr(self, "stage"):
            return
        self.faults.is_healed = True
        world = self.stage.world
        lifetime = world.elapsed + _LIFETIME
        for writer in self.writers:
            writer.cancel()
        world.run(lambda: all(w.is_done for w in self.writers), lifetime)
        world.run(lambda: self.stage.network.is_quiet, lifetime)
        for reader in self.readers:
            reader.finish()
        world.run(lambda: all(r.is_done for r in self.readers), lifetime)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=25)
