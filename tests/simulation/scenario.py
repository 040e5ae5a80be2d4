"""A run: who takes part, with which settings, and what goes wrong, all from one seed."""

from __future__ import annotations

import json
from random import Random

from attrs import define, field

from s2frames.compression import Compression
from s2frames.embedded import Service
from s2frames.reader import DEFAULT_MAX_REREAD
from s2frames.retry import Retry
from s2frames.settings import AppendSettings, Endpoints, ReadSettings, Settings
from s2frames.target import StreamTarget
from simulation.commander import Commander
from simulation.driver import Actor, Stage
from simulation.faults import Faults
from simulation.interruptions import Interruptions
from simulation.invariants import Oracle, RecordingStore
from simulation.network import Network
from simulation.readers import Latest, Reader
from simulation.trace import Trace
from simulation.world import World
from simulation.writers import Neighbour, Writer, WriterPlan

__all__ = ["Failure", "Result", "Scenario", "build_stage", "run_seed"]

_BASIN = "test-basin"
_STREAM = "room/1"

# Seconds after which everything must have come to its end.
_LIFETIME = 560.0

# One message in so many scenarios takes several records: more than 1 MiB takes its time.
_ONE_LARGE_IN = 100
_LARGE = (1_048_400, 1_100_000, 2_200_000)


@define
class Result:
    """What came of a run."""

    seed: int
    sessions: int
    messages: int
    trace: Trace


class Failure(AssertionError):
    """A run in which an invariant does not hold, or that hangs."""

    def __init__(self, seed: int, why: str, trace: Trace) -> None:
        super().__init__(
            f"seed {seed}: {why}\nreplay it with: nox -s simulate -- --seed {seed} --trace"
        )
        self.seed = seed
        self.trace = trace


def build_stage(
    random: Random,
    faults: Faults,
    settings: Settings,
    *,
    is_uncapped: bool = False,
    interruptions: Interruptions | None = None,
) -> Stage:
    """A service with one stream, a network before it, and an oracle that watches.

    `is_uncapped`: records may have timestamps in the future.
    """
    world = World(random)
    store = RecordingStore()
    service = Service(store, random=random.random)
    _put(service, f"/v1/basins/{_BASIN}", {}, world.now)
    config = {"timestamping": {"uncapped": is_uncapped}}
    _put(service, "/v1/streams/room%2F1", config, world.now)
    oracle = Oracle(store)
    world.check = oracle.check
    network = Network(world, service, faults.plan)
    target = StreamTarget(settings, _BASIN, _STREAM)
    chance = Random(random.getrandbits(64))
    return Stage(
        world, network, oracle, target, chance, interruptions or Interruptions(random, 0, 1)
    )


def _put(service: Service, path: str, body: object, now: float) -> None:
    headers = {"s2-basin": _BASIN, "content-type": "application/json"}
    exchange = service.open("PUT", path, headers, now)
    exchange.receive_data(json.dumps(body).encode(), now)
    exchange.receive_eof(now)
    assert exchange.response is not None
    assert exchange.response.status == 201


@define(eq=False)
class Scenario:
    """The cast of a run, chosen from its seed."""

    seed: int
    random: Random = field(init=False)
    faults: Faults = field(init=False)
    stage: Stage = field(init=False)
    writers: list[Writer] = field(factory=list, init=False)
    readers: list[Reader] = field(factory=list, init=False)
    neighbours: list[Neighbour] = field(factory=list, init=False)
    commander: Commander | None = field(default=None, init=False)
    #: Seconds after which nothing goes wrong any more.
    heals_after: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        random = self.random = Random(self.seed)
        percent = random.choice((0, 20, 40, 60, 80))
        cuts = random.randrange(3) > 0
        self.faults = Faults(random, percent, cuts, random.choice((0.0, 0.005, 0.05, 1.0)))
        self.heals_after = random.choice((0.5, 5.0, 30.0, 90.0, 200.0))
        is_uncapped = random.randrange(2) == 0
        self.stage = build_stage(
            random,
            self.faults,
            self._settings(),
            is_uncapped=is_uncapped,
            interruptions=self._interruptions(),
        )
        self._cast()

    def run(self) -> Result:
        """Play it to its end. Raises `Failure`."""
        try:
            self._play()
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise Failure(self.seed, why, self.stage.world.trace) from error
        messages = sum(len(lane.frames) for lane in self.stage.oracle.lanes.values())
        return Result(self.seed, self.stage.sessions, messages, self.stage.world.trace)

    def _play(self) -> None:
        world = self.stage.world
        world.after(self.heals_after, self._heal)
        actors: tuple[Actor, ...] = (*self.writers, *self.neighbours, *self.readers)
        for actor in actors:
            world.after(self.random.random() * 0.5, actor.start)
        if self.commander is not None:
            self.commander.start()
        world.run(self._is_written, _LIFETIME)
        self._heal()
        world.run(lambda: all(reader.is_caught_up() for reader in self.readers), _LIFETIME)
        for reader in self.readers:
            reader.finish()
        world.run(lambda: all(reader.is_done for reader in self.readers), _LIFETIME)
        latest = Latest(self.stage, "latest", self.random.randint(1, 8))
        # A quiet stream is worth reading over a bad network too.
        self.faults.is_healed = self.random.randrange(2) == 0
        latest.start()
        world.run(lambda: latest.is_done, world.elapsed + _LIFETIME)

    def _is_written(self) -> bool:
        actors: tuple[Actor, ...] = (*self.writers, *self.neighbours)
        if self.commander is not None:
            actors += (self.commander,)
        return all(actor.is_done for actor in actors) and self.stage.network.is_quiet

    def _heal(self) -> None:
        self.faults.is_healed = True
        self.stage.world.note("network", "heals")

    # The cast

    def _interruptions(self) -> Interruptions:
        # Tracing is slow: only some runs pay for it.
        count = self.random.choice((0, 0, 2, 10))
        pause = self.random.choice((20, 100))
        return Interruptions(Random(self.random.getrandbits(64)), count, pause)

    def _settings(self) -> Settings:
        # gzip is slow: only some runs pay for it.
        compression = self.random.choice((Compression.NONE, Compression.NONE, Compression.GZIP))
        return Settings(
            endpoints=Endpoints.at("http://localhost"),
            compression=compression,
            retry=self._retry(),
        )

    def _retry(self) -> Retry:
        return self.random.choice(
            (Retry(), Retry(), Retry(max_attempts=3), Retry(max_seconds=8.0), Retry(max_attempts=1))
        )

    def _cast(self) -> None:
        random = self.random
        kind = random.choice(("shared", "shared", "exclusive", "exclusive", "plain"))
        is_fenced = random.randrange(4) == 0
        num_writers = 1 if kind == "exclusive" else random.randint(1, 3)
        for number in range(num_writers):
            is_plain = kind == "plain" and number == 0
            settings = self._append_settings(
                is_exclusive=kind == "exclusive", is_plain=is_plain, is_fenced=is_fenced
            )
            plan = self._writer_plan(settings, is_plain=is_plain)
            self.writers.append(Writer(self.stage, f"writer{number}", plan, random))
        for number in range(random.choice((0, 0, 1, 2)) if kind != "exclusive" else 0):
            self.neighbours.append(
                Neighbour(
                    self.stage, f"neighbour{number}", random, random.randint(1, 5), random.random()
                )
            )
        for number in range(random.randint(1, 3)):
            is_restless = random.randrange(3) > 0
            reader = Reader(
                self.stage, f"reader{number}", random, self._read_settings(), is_restless
            )
            self.readers.append(reader)
        if is_fenced or random.randrange(3) == 0:
            self.commander = Commander(
                self.stage,
                "commander",
                random,
                random.randint(1, 4),
                random.choice((0.1, 2.0, 20.0)),
                trims=random.randrange(2) == 0,
                fences=is_fenced,
            )
        if random.randrange(4) == 0:
            start, length = random.random() * 10, random.choice((0.5, 5.0, 40.0, 100.0))
            self.stage.world.after(start, lambda: self.stage.network.go_down(length))

    def _append_settings(
        self, *, is_exclusive: bool, is_plain: bool, is_fenced: bool
    ) -> AppendSettings:
        random = self.random
        may_repeat = is_plain and random.randrange(2) == 0
        self.stage.oracle.plain.may_repeat = may_repeat or self.stage.oracle.plain.may_repeat
        return AppendSettings(
            dedupe=not is_plain,
            exclusive=is_exclusive,
            allow_duplicates=may_repeat,
            fencing_token="" if is_fenced and random.randrange(2) else None,
            linger=random.choice((0.0, 0.005, 0.5)),
            max_inflight_batches=random.choice((1, 3, 16)),
            burst_batches=random.choice((None, None, None, 1, 2, 64)),
        )

    def _read_settings(self) -> ReadSettings:
        random = self.random
        follow = random.randrange(3) > 0
        return ReadSettings(
            follow=follow,
            wait=None if follow else random.choice((None, 1, 3)),
            limit=random.choice((None, None, None, 4)),
            max_buffered_bytes=8 * 2**20,
            max_frame_bytes=2**22,
            max_reread=random.choice((DEFAULT_MAX_REREAD, DEFAULT_MAX_REREAD, 3, 10, 30)),
        )

    def _writer_plan(self, settings: AppendSettings, *, is_plain: bool) -> WriterPlan:
        random = self.random
        count = random.choice((1, 3, 8, 20))
        sizes = [random.choice((0, 0, 3, 40)) for _ in range(count)]
        if random.randrange(6) == 0:
            sizes[random.randrange(count)] = 3000
        if not is_plain and random.randrange(_ONE_LARGE_IN) == 0:
            sizes[random.randrange(count)] = random.choice(_LARGE)
        crashes = [random.random() * 10 for _ in range(random.choice((0, 0, 1, 2)))]
        return WriterPlan(
            settings=settings,
            sizes=sizes,
            max_pause=random.choice((0.001, 0.05, 1.0)),
            crashes=sorted(crashes),
            has_own_timestamps=random.randrange(3) == 0,
            goes_on=random.randrange(4) > 0,
        )


def run_seed(seed: int) -> Result:
    """Play the run of a seed. Raises `Failure`."""
    return Scenario(seed).run()
