"""Lets a family's disturbances happen in a batch of worlds; see disturbances.py for what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import mujoco
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from metarl.core.distributions import Distribution
from metarl.core.info import Part
from metarl.core.tasks import Tasks
from metarl.sim.changes import Changes, require_free
from metarl.sim.disturbances import ActionLatency, Disturbance, EncoderOffset, Force, Kick, bounds
from metarl.sim.episode import Episode, Timer
from metarl.sim.family import Family, MujocoFamily
from metarl.sim.motors import Motors
from metarl.sim.mujoco.physics import Physics
from metarl.sim.senses import Senses
from metarl.sim.variation import Variator, constant, object_id

_NEVER = 1 << 60  # physics steps


class Disturber:
    """All disturbances of a family: what they do to the task, to commands, to the robot and to what it senses."""

    def __init__(self, physics: Physics, family: MujocoFamily, variator: Variator, motors: Motors) -> None:
        worlds = (physics.num_worlds, physics.device, physics.dtype)
        self.episode = Episode(family, *worlds, family.observation, physics, family.num_substeps(physics.model))
        self._changes = Changes(self.episode, variator)
        self._commands = Commands(self.episode, motors)
        self._pushes = Pushes(self.episode)
        self._senses = Senses(self.episode)

    @property
    def tasks(self) -> Tasks:
        """The tasks as they are now."""
        return self.episode.tasks

    @property
    def poses(self) -> bool:
        """It gives the worlds their models, at the start of an episode and within it."""
        return bool(self._changes)

    def begin(
        self,
        keys: Int64[Tensor, "N"],
        streams: Int64[Tensor, "N"],
        episodes: Int64[Tensor, "N"],
        mask: Bool[Tensor, "N"],
        tasks: Tasks,
    ) -> None:
        """Draw what is drawn for an episode of the worlds of `mask`, ahead of their reset, and pose their tasks."""
        self.episode.begin(keys, streams, episodes, mask, tasks)
        if self._changes:
            self._changes.begin(mask, tasks)
        self._pushes.begin(mask)

    def change(self, mask: Bool[Tensor, "N"], tasks: Tasks) -> None:
        """Other tasks within an episode; the worlds of `mask` are posed."""
        self._changes.put(mask, tasks)

    def hold(self, kind: type[Disturbance], name: str, value: float) -> None:
        """Set a magnitude that is a fixed number, of the disturbances of a kind, to another one in all worlds."""
        for i, _ in self.episode.all(kind):
            self.episode.value(i, name).fill_(value)

    def rest(self, mask: Bool[Tensor, "N"]) -> None:
        """Those worlds have been reset: their `ctrl` is what has been in force."""
        self._commands.begin(mask)

    def act(self, command: Float[Tensor, "N A"], looks: bool) -> None:
        """A control step: what becomes of the commands, and all that pushes the robot. `looks`: see `TrialEnv`."""
        self._pushes.push()
        self._commands.step(command, looks)

    def tick(self, tasks: Tasks, looks: bool) -> None:
        """After it: what changes ahead of the next one."""
        self.episode.go_on()
        if self._changes:
            self._changes.tick(tasks, looks)
        self._pushes.tick()

    def sense(self, seen: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What sensors make of what a family observes."""
        return self._senses.sense(seen)

    def parts(self) -> tuple[Part, ...]:
        """What `hidden` says."""
        return (*self._changes.parts(), *self.episode.drawn_parts(), *self._pushes.parts())

    def hidden(self) -> list[Tensor]:
        """Present values of what the task does not tell, of about unit size, (N, size) each."""
        return [*self._changes.hidden(), *self.episode.drawn(), *self._pushes.hidden()]


class OutsideDisturber:
    """What can be done to worlds whose simulator is not ours: commands come late or never, sensors lie."""

    def __init__(self, family: Family, num_worlds: int, parts: Sequence[Part], action_size: int) -> None:
        self.episode = Episode(family, num_worlds, torch.device("cpu"), torch.float64, parts)
        self._sizes = {part.name: part.size for part in parts}
        self._rest = torch.zeros(num_worlds, action_size, dtype=torch.float64)  # the middle of the actions' range
        self._delay, self._senses = delay_of(self.episode, self._rest), Senses(self.episode)

    def begin(
        self,
        keys: Int64[Tensor, "N"],
        streams: Int64[Tensor, "N"],
        episodes: Int64[Tensor, "N"],
        mask: Bool[Tensor, "N"],
        tasks: Tasks,
    ) -> None:
        """Draw what is drawn for an episode of the worlds of `mask`."""
        self.episode.begin(keys, streams, episodes, mask, tasks)
        if self._delay is not None:
            self._delay.begin(mask, self._rest)

    def command(self, action: Float[Tensor, "N A"]) -> Float[Tensor, "N A"]:
        """The action that arrives in a control step, late by whole ones; time goes on."""
        arrived = action if self._delay is None else self._delay.arrived(action)[:, 0]
        self.episode.go_on()
        return arrived

    def sense(self, obs: Float32[Tensor, "N S"]) -> Float32[Tensor, "N S"]:
        """What sensors make of an observation."""
        parts = torch.split(obs.double(), list(self._sizes.values()), dim=1)
        seen = self._senses.sense(dict(zip(self._sizes, parts, strict=True)))
        return torch.cat([seen[name] for name in self._sizes], dim=1).float()


class Delay:
    """Commands on their way: each arrives late, and may be lost; until the next one arrives the last stays in force."""

    def __init__(self, episode: Episode, number: int, declared: ActionLatency, rest: Float[Tensor, "N A"]) -> None:
        """`rest` has been in force for long when an episode begins; `number` is the disturbance's."""
        self._episode, self._number = episode, number
        space = episode.family.space
        late = bounds(declared.seconds, space)[1] + bounds(declared.jitter, space)[1]
        self._timestep = episode.family.control_step / episode.num_substeps
        self._longest = math.ceil(late / self._timestep - 1e-9)
        length = math.ceil(self._longest / episode.num_substeps) + 1
        self._newest = torch.arange(length, 0, -1, device=episode.device)
        self._sent = rest[:, None].repeat(1, length, 1)  # newest first
        self._arrival = torch.zeros(episode.num_worlds, length, dtype=torch.long, device=episode.device)
        self._held = rest.clone()

    def begin(self, mask: Bool[Tensor, "N"], rest: Float[Tensor, "N A"]) -> None:
        """Put the worlds of `mask` where an episode begins."""
        self._sent.copy_(torch.where(mask[:, None, None], rest[:, None], self._sent))
        self._arrival.masked_fill_(mask[:, None], -1)
        self._held.copy_(torch.where(mask[:, None], rest, self._held))

    def arrived(self, command: Float[Tensor, "N A"]) -> Float[Tensor, "N S A"]:
        """The command in force at each physics step of the control step in which `command` is sent."""
        i, episode = self._number, self._episode
        now = episode.age * episode.num_substeps
        late = episode.value(i, "seconds")[:, 0]
        if not episode.is_zero(i, "jitter"):
            jitter = episode.random(i, "+jitter", episode.age).uniform(-1.0, 1.0, 1)[:, 0]
            late = late + jitter * episode.value(i, "jitter")[:, 0]
        arrival = now + (late / self._timestep).round().clamp(0, self._longest).long()
        if not episode.is_zero(i, "lost"):
            luck = episode.random(i, "+lost", episode.age).uniform(0.0, 1.0, 1)[:, 0]
            arrival = torch.where(luck < episode.value(i, "lost")[:, 0], _NEVER, arrival)
        self._sent.copy_(torch.cat((command[:, None], self._sent[:, :-1]), dim=1))
        self._arrival.copy_(torch.cat((arrival[:, None], self._arrival[:, :-1]), dim=1))
        times = now[:, None] + torch.arange(episode.num_substeps, device=episode.device)
        there = self._arrival[:, None] <= times[:, :, None]
        newest = (there * self._newest).argmax(dim=2)
        arrived = self._sent.gather(1, newest[:, :, None].expand(-1, -1, command.shape[1]))
        arrived = torch.where(there.any(dim=2)[:, :, None], arrived, self._held[:, None])
        self._held.copy_(arrived[:, -1])
        return arrived


def delay_of(episode: Episode, rest: Float[Tensor, "N A"]) -> Delay | None:
    """What delays the commands of a family; None where they are in time."""
    found = next(iter(episode.all(ActionLatency)), None)
    return None if found is None else Delay(episode, *found, rest)


class Commands:
    """What motors make of commands."""

    def __init__(self, episode: Episode, motors: Motors) -> None:
        self._episode, self._motors = episode, motors
        self._delay = delay_of(episode, motors.at_rest())
        self._offsets = [(i, *_servos(episode, one)) for i, one in episode.all(EncoderOffset)]

    def begin(self, mask: Bool[Tensor, "N"]) -> None:
        """The command that `reset` wrote has been in force for long."""
        if self._delay is not None:
            self._delay.begin(mask, self._motors.at_rest())

    def step(self, command: Float[Tensor, "N A"], looks: bool) -> None:
        """A control step in which the motors follow whatever has arrived; `ctrl` then holds the command itself."""
        motors, tasks, number = self._motors, self._episode.tasks, self._episode.num_substeps
        shift = self._shifted if self._offsets else None
        if self._delay is None:
            motors.drive(command, number, tasks, shift)
        else:
            arrived = self._delay.arrived(command)
            alike = looks and bool((arrived == arrived[:, :1]).numpy().all())
            for substep in range(1 if alike else number):
                motors.drive(arrived[:, substep], number if alike else 1, tasks, shift)
        if not motors.lawful:
            motors.ctrl.copy_(command)

    def _shifted(self, command: Float[Tensor, "N A"]) -> Float[Tensor, "N A"]:
        """What servos make of targets in their encoders' angles."""
        for i, elements, gears in self._offsets:
            device, dtype = command.device, command.dtype
            offset = self._episode.value(i, "offset")[:, constant(elements, device)]
            command = command - offset * constant(gears, device, dtype)
        return command


def _servos(episode: Episode, declared: EncoderOffset) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Of each actuator, its joint's place in the part, and its gear; the gear is 0 where it measures no joint of it."""
    model = episode.physics.model
    names = next(part.elements for part in episode.family.observation if part.name == declared.part)
    elements, gears = [], []
    for actuator in range(model.nu):
        joint = model.joint(int(model.actuator_trnid[actuator, 0])).name
        measures = model.actuator_trntype[actuator] == int(mujoco.mjtTrn.mjTRN_JOINT) and bool(
            model.actuator_biastype[actuator] == int(mujoco.mjtBias.mjBIAS_AFFINE)
            and model.actuator_biasprm[actuator, 1] != 0
        )
        elements.append(names.index(joint) if joint in names else 0)
        gears.append(float(model.actuator_gear[actuator, 0]) if measures and joint in names else 0.0)
    return tuple(elements), tuple(gears)


class Pushes:
    """Kicks and forces from outside."""

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self._kicks = [(i, Timer(episode, i, "every")) for i, _ in episode.all(Kick)]
        if self._kicks:
            require_free(episode, "a Kick")
        model = episode.physics.model
        self._forces = [
            (i, one, object_id(model, "body", one.body), Timer(episode, i, "hold")) for i, one in episode.all(Force)
        ]
        if self._forces:
            self._applied = episode.physics.bind("xfrc_applied")
            self._quaternion = episode.physics.bind("xquat", fresh=False)
        self._kicked = [torch.zeros_like(episode.age, dtype=torch.bool) for _ in self._kicks]

    def begin(self, mask: Bool[Tensor, "N"]) -> None:
        """No kick yet, the first forces."""
        for kicked in self._kicked:
            kicked.masked_fill_(mask, False)
        for timer in self._timers():
            timer.begin(mask)

    def tick(self) -> None:
        """Time passes."""
        for kicked, (_, timer) in zip(self._kicked, self._kicks, strict=True):
            kicked.copy_(timer.tick())
        for *_, timer in self._forces:
            timer.tick()

    def push(self) -> None:
        """Change velocities, and set the forces of the control step."""
        for (i, timer), kicked in zip(self._kicks, self._kicked, strict=True):
            velocity = self._episode.physics.bind("qvel")
            angle = self._episode.random(i, "+speed", timer.count).uniform(0.0, 2.0 * math.pi, 1)
            speed = self._episode.redrawn(i, "speed", timer.count)
            change = speed * torch.cat((angle.cos(), angle.sin()), dim=1)
            velocity[:, :2] += torch.where(kicked[:, None], change, 0.0)
        for body in {body for _, _, body, _ in self._forces}:
            self._applied[:, body].zero_()
        for i, one, body, timer in self._forces:
            ahead = _heading(self._quaternion[:, body])
            x, y = ahead.unbind(dim=1)
            along = ahead if one.axis == 0 else torch.stack((-y, x), dim=1)
            newton = self._episode.redrawn(i, "newton", timer.count)
            if one.is_timed:
                age, start = self._episode.age, self._episode.steps(self._episode.value(i, "onset")[:, 0])
                stop = start + self._episode.steps(self._episode.value(i, "duration")[:, 0])
                newton = newton * ((age >= start) & (age < stop))[:, None]
            self._applied[:, body, :2] += newton * along

    def parts(self) -> tuple[Part, ...]:
        """The forces, where they are drawn."""
        return tuple(Part(f"{one.body}_force", 1, "1", help="from -1 to 1") for _, one, *_ in self._random_forces())

    def hidden(self) -> list[Tensor]:
        """See `Disturber.hidden`."""
        found = []
        for i, one, _, timer in self._random_forces():
            low, high = bounds(one.newton, self._episode.family.space)
            found.append(2.0 * (self._episode.redrawn(i, "newton", timer.count) - low) / ((high - low) or 1.0) - 1.0)
        return found

    def _random_forces(self) -> list[tuple[int, Force, int, Timer]]:
        return [entry for entry in self._forces if isinstance(entry[1].newton, Distribution)]

    def _timers(self) -> list[Timer]:
        return [timer for _, timer in self._kicks] + [timer for *_, timer in self._forces]


def _heading(quaternion: Float[Tensor, "N 4"]) -> Float[Tensor, "N 2"]:
    """Horizontal direction of a body's x axis, of unit length."""
    w, x, y, z = quaternion.unbind(dim=1)
    ahead = torch.stack((1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z)), dim=1)
    return ahead / torch.hypot(*ahead.unbind(dim=1)).clamp(min=1e-9)[:, None]
