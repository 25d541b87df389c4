"""A bundle run on a robot: in simulation, behind UDP, or on a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from metarl.core.errors import UserError
from metarl.export.runtime import Bundle, BundleError
from metarl.export.runtime.computing import Computing, InlinePolicy, ProcessPolicy
from metarl.export.runtime.guard import Limits
from metarl.export.runtime.runner import Clock, Runner, SteppedClock, Summary, Transport

if TYPE_CHECKING:
    from metarl.core.tasks import Split
    from metarl.export.runtime.transports import UdpServer


@dataclass(frozen=True)
class Deployment:
    """Where and how a bundle is run."""

    on: Literal["sim", "udp", "replay"] = "sim"
    udp: str = ""
    """HOST:PORT of a robot."""
    replay: Path | None = None
    """A log, CSV or MCAP."""
    seconds: float = 20.0
    fast: bool = False
    """In simulation and replay: as fast as possible, with the policy in this process."""
    task: Mapping[str, float] | None = None
    """In simulation: parameters of the task that are fixed."""
    split: Split = "test"
    """In simulation: where the others are from."""
    family: str = ""
    """In simulation: a family in the place of the one that the bundle was trained on."""
    log: Path | None = None
    """CSV file to write."""
    seed: int = 0


@dataclass(frozen=True)
class Deployed:
    """What came of it."""

    summary: Summary
    bundle: Bundle
    jitter: tuple[float, ...] = ()
    """Over UDP: how much longer each observation was on its way than the fastest [s]."""
    differences: tuple[float, ...] = ()
    """In a replay: largest difference of each command to the recorded one."""


def deploy(bundle: str | Path | Bundle, how: Deployment | None = None, limits: Limits | None = None) -> Deployed:
    """Run a bundle, guarded.

    Args:
        bundle: A folder that `metarl export` has written, or what `Bundle.read` made of one.
        how: Where, how long and what to note.
        limits: What the guard allows; in simulation a start of an episode ends a stop.

    Returns:
        What happened: steps, misses, flags of the guard, latencies, returns.

    Raises:
        UserError: The bundle is damaged or does not fit the robot, or the robot cannot be reached.
    """
    how = how or Deployment()
    try:
        read = bundle if isinstance(bundle, Bundle) else _bundle(bundle)
        return _run(read, how, limits or Limits(restart=how.on == "sim"))
    except BundleError as error:
        raise UserError(str(error)) from None


def served(bundle: str | Path, port: int, how: Deployment | None = None) -> UdpServer:
    """The simulated robot behind UDP on this machine: its `serve` has `deploy` drive it by `udp`."""
    from metarl.export.runtime.transports import UdpServer

    try:
        return UdpServer(_simulated(_bundle(bundle), how or Deployment(), Clock()), port)
    except BundleError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"port {port} cannot be taken: {error.strerror}") from None


def _bundle(path: str | Path) -> Bundle:
    if not Path(path, "contract.json").exists():
        raise UserError(
            f"{path} is no bundle, as it has no contract.json: metarl export RUN -o DIR writes one of a run"
        )
    return Bundle.read(path)


def _run(bundle: Bundle, how: Deployment, limits: Limits) -> Deployed:
    clock = SteppedClock() if how.fast and how.on != "udp" else Clock()
    transport, seconds = _transport(bundle, how, clock)
    policy: Computing = InlinePolicy(bundle, how.seed) if how.fast else ProcessPolicy(bundle, how.seed)
    try:
        runner = Runner(bundle, transport, policy=policy, clock=clock, limits=limits, log=how.log)
        summary = runner.run(seconds)
    finally:
        policy.close()
        if hasattr(transport, "close"):
            transport.close()
    jitter, differences = (tuple(getattr(transport, name, ())) for name in ("ages", "differences"))
    return Deployed(summary, bundle, jitter, differences)


def _transport(bundle: Bundle, how: Deployment, clock: Clock) -> tuple[Transport, float]:
    from metarl.export.runtime.transports import Replay, UdpRobot

    if how.on == "udp":
        host, _, port = how.udp.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UserError(f"--udp '{how.udp}' is no HOST:PORT, as 127.0.0.1:9000")
        return UdpRobot((host, int(port)), clock), how.seconds
    if how.on == "replay":
        assert how.replay is not None
        played = Replay(how.replay, bundle, clock)
        return played, min(how.seconds, played.seconds)
    return _simulated(bundle, how, clock), how.seconds


def _simulated(bundle: Bundle, how: Deployment, clock: Clock) -> Transport:
    from metarl.core.registry import family_names, make_family
    from metarl.export.simulated import SimulatedRobot

    run = bundle.contract.get("run")
    named = how.family or str(run.get("family", "") if isinstance(run, dict) else "")
    if not how.family and named not in family_names():  # a bundle is data: code that it names is not run
        raise UserError(f"the bundle was trained on '{named}', which is no family of metarl: name one with --family")
    episodes = int(bundle.contract.get("episodes_per_trial", 1))
    return SimulatedRobot(make_family(named), clock, episodes, task=how.task, split=how.split, seed=how.seed)
