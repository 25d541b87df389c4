"""`metarl deploy`: run a bundle on a robot, guarded, and tell how it went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from metarl.cli.parsing import parse
from metarl.core.errors import UserError
from metarl.core.parameters import require

if TYPE_CHECKING:
    from metarl.export.deploy import Deployed


@dataclass(frozen=True)
class DeployOptions:
    """Run a bundle of `metarl export` on a robot: the simulated one, one behind UDP, or a recording.

    A guard stands between policy and robot: it checks observations, limits commands, and stops in time.
    """

    bundle: Path
    """Folder that `metarl export` has written."""
    sim: bool = False
    """Drive the simulated robot; so it is by default."""
    udp: str = ""
    """Drive the robot at HOST:PORT."""
    serve: int = 0
    """Be the simulated robot at this port of this machine, for --udp from another terminal."""
    replay: Path | None = None
    """Play back the observations of a log (CSV or MCAP), and compare the commands with those in it."""
    seconds: float = 20.0
    """How long [s]; of a replay, no longer than the log."""
    fast: bool = False
    """In simulation and replay: as fast as possible, not in real time."""
    task: tuple[str, ...] = ()
    """In simulation: task parameters to fix, as payload=2.0."""
    split: Literal["train", "test", "ood"] = "test"
    """In simulation: where all other task parameters are drawn from."""
    family: str = ""
    """In simulation: drive another family, a name or path/to/file.py:ClassName."""
    ramp_in: float = 0.5
    """Time within which the policy's commands are blended in at a start [s]."""
    log: Path | None = None
    """Write a row per step to this CSV file."""
    seed: int = 0
    """Seed of the initial states, and of what the policy draws."""

    def __post_init__(self) -> None:
        chosen = [
            name for name, given in (("--sim", self.sim), ("--udp", self.udp), ("--replay", self.replay)) if given
        ]
        if len(chosen) > 1:
            raise UserError(f"{' and '.join(chosen)} exclude each other: leave all but one out")
        if self.udp and self.fast:
            raise UserError("--fast is for the simulated robot and for recordings: a real one has a clock of its own")
        require(self, "seconds", 0.0 < self.seconds < 1e6, "above 0")
        require(self, "ramp_in", 0.0 <= self.ramp_in <= 60.0, "in [0, 60]")
        require(self, "serve", 0 <= self.serve < 65536, "in [1, 65535]")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")


def run(words: list[str]) -> int:
    """Run it, and print what happened; 1 where the guard stopped for good."""
    options = parse(DeployOptions, "deploy", words)
    from metarl.export.deploy import Deployment, deploy, served
    from metarl.export.runtime.guard import Limits

    how = Deployment(
        on="udp" if options.udp else "replay" if options.replay else "sim",
        udp=options.udp,
        replay=options.replay,
        seconds=options.seconds,
        fast=options.fast,
        task=_task(options.task),
        split=options.split,
        family=options.family,
        log=options.log,
        seed=options.seed,
    )
    if options.serve:
        robot = served(options.bundle, options.serve, how)
        print(f"the simulated robot listens at 127.0.0.1:{robot.port}; Ctrl-C ends it", flush=True)
        robot.serve()
    done = deploy(options.bundle, how, Limits(ramp_in=options.ramp_in, restart=how.on == "sim"))
    print(*_told(done), sep="\n")
    if options.log is not None:
        print(f"wrote {options.log}: {done.summary.steps} steps")
    return 1 if done.summary.stopped and how.on != "sim" else 0


def _task(words: tuple[str, ...]) -> Mapping[str, float]:
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise UserError(f"--task {word} is no NAME=NUMBER, as payload=2.0") from None
    return found


def _told(done: Deployed) -> Iterator[str]:
    summary, step = done.summary, done.bundle.control_step
    yield from (f"note: {objection}" for objection in done.bundle.contract.get("objections") or [])
    yield f"{summary.steps} steps of {1000 * step:g} ms in {summary.seconds:.1f} s"
    if len(summary.returns) > 1 or summary.returns[0]:
        whole = summary.returns[:-1] if len(summary.returns) > 1 else summary.returns
        shown = ", ".join(f"{value:.1f}" for value in whole[:12]) + (", ..." if len(whole) > 12 else "")
        yield f"returns of {len(whole)} episodes: {shown}; {summary.falls} falls"
    yield "states: " + ", ".join(f"{name} {count}" for name, count in summary.states.most_common())
    flags = ", ".join(f"{name} {count}" for name, count in summary.flags.most_common())
    yield f"the guard's flags: {flags or 'none'}"
    yield f"deadlines missed: {summary.misses}; steps begun late: {summary.late}, left out: {summary.skipped}"
    if summary.latency.sum():
        shares = ", ".join(
            f"{name} {_share(summary.quantile(q))}" for name, q in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
        )
        yield f"latency from a step's begin to the action, in control steps: {shares}"
        yield from _histogram(done)
    if done.jitter:
        from statistics import quantiles

        cuts = quantiles(done.jitter, n=100) if len(done.jitter) > 1 else [done.jitter[0]] * 99
        told = f"p50 {1000 * cuts[49]:.2f} ms, p99 {1000 * cuts[98]:.2f} ms"
        yield f"observations on their way, longer than the fastest by: {told}"
    if done.differences:
        known = [value for value in done.differences if value == value]
        yield f"commands differ from the log's by at most {max(known, default=float('nan')):.3g}"
    if summary.stopped:
        yield f"stopped: {summary.stopped}"


def _share(value: float) -> str:
    return f"< {value:.2f}" if value <= 1.0 else "> 1"


def _histogram(done: Deployed) -> Iterator[str]:
    """Ten bars for the control step, and one beyond."""
    counts = [int(done.summary.latency[5 * i : 5 * i + 5].sum()) for i in range(10)] + [int(done.summary.latency[50])]
    total = sum(counts)
    for i, count in enumerate(counts):
        if count:
            name = f"{10 * i:3d}-{10 * i + 10} %" if i < 10 else "  beyond"
            yield f"  {name:>9} {'#' * max(1, round(40 * count / total))} {count}"
