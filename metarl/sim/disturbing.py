"""Lets a family's disturbances happen in a batch of worlds; see disturbances.py for what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import mujoco
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.distributions import Distribution
from metarl.core.info import Part
from metarl.core.tasks import Tasks
from metarl.sim.changes import Changes, require_free
from metarl.sim.disturbances import ActionLatency, Disturbance, EncoderOffset, Force, Kick, OfPart, bounds
from metarl.sim.episode import Episode, Timer
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.physics import Physics
from metarl.sim.senses import Senses
from metarl.sim.variation import Variator, constant, object_id

_NEVER = 1 << 60  # physics steps


class Disturber:
    """All disturbances of a family: what they do to the task, to commands, to the robot and to what it senses."""

    def __init__(self, physics: Physics, family: MujocoFamily, variator: Variator) -> None:
        self.episode = Episode(physics, family, family.num_substeps(physics.model))
        self._changes = Changes(self.episode, variator)
        self._commands = Commands(self.episode)
        self._pushes = Pushes(self.episode)
        self._senses = Senses(self.episode)
        self._drawn = [
            (i, name, magnitude)
            for i, one in enumerate(family.disturbances)
            for name, magnitude in one.magnitudes().items()
            if name in one.shown and isinstance(magnitude, Distribution)
        ]

    @property
    def tasks(self) -> Tasks:
        """The tasks as they are now."""
        return self.episode.tasks

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
        episode, found = self.episode, list(self._changes.parts())
        parts = {part.name: part for part in episode.family.observation}
        for i, name, _ in self._drawn:
            one = episode.family.disturbances[i]
            owner = one.part if isinstance(one, OfPart) else type(one).__name__
            found.append(Part(f"{owner}_{name}", one.size(name, parts), "1", help="its draw, from -1 to 1"))
        return (*found, *self._pushes.parts())

    def hidden(self) -> list[Tensor]:
        """Present values of what the task does not tell, of about unit size, (N, size) each."""
        space, found = self.episode.family.space, self._changes.hidden()
        for i, name, magnitude in self._drawn:
            low, high = bounds(magnitude, space)
            found.append(2.0 * (self.episode.value(i, name) - low) / ((high - low) or 1.0) - 1.0)
        return [*found, *self._pushes.hidden()]


class Commands:
    """Commands on their way to the motors."""

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self._ctrl = episode.physics.bind("ctrl")
        self._latency = next(iter(episode.all(ActionLatency)), None)
        self._offsets = [(i, *_servos(episode, one)) for i, one in episode.all(EncoderOffset)]
        if self._latency is None:
            return
        space, (_, declared) = episode.family.space, self._latency
        late = bounds(declared.seconds, space)[1] + bounds(declared.jitter, space)[1]
        self._timestep = episode.family.control_step / episode.num_substeps
        self._longest = math.ceil(late / self._timestep - 1e-9)
        length = math.ceil(self._longest / episode.num_substeps) + 1
        self._newest = torch.arange(length, 0, -1, device=episode.device)
        self._sent = self._ctrl[:, None].repeat(1, length, 1)  # newest first
        self._arrival = torch.zeros(episode.num_worlds, length, dtype=torch.long, device=episode.device)
        self._held = self._ctrl.clone()

    def begin(self, mask: Bool[Tensor, "N"]) -> None:
        """The command that `reset` wrote has been in force for long."""
        if self._latency is not None:
            self._sent.copy_(torch.where(mask[:, None, None], self._ctrl[:, None], self._sent))
            self._arrival.masked_fill_(mask[:, None], -1)
            self._held.copy_(torch.where(mask[:, None], self._ctrl, self._held))

    def step(self, command: Float[Tensor, "N A"], looks: bool) -> None:
        """A control step in which the motors follow whatever has arrived; `ctrl` then holds the command itself."""
        physics, number = self._episode.physics, self._episode.num_substeps
        if self._latency is None:
            self._ctrl.copy_(self._shifted(command))
            physics.step(number)
        else:
            arrived = self._arrived(command)
            alike = looks and bool((arrived == arrived[:, :1]).numpy().all())
            for substep in range(1 if alike else number):
                self._ctrl.copy_(self._shifted(arrived[:, substep]))
                physics.step(number if alike else 1)
        self._ctrl.copy_(command)

    def _arrived(self, command: Float[Tensor, "N A"]) -> Float[Tensor, "N S A"]:
        """The command in force at each physics step of the control step."""
        assert self._latency is not None
        i, episode = self._latency[0], self._episode
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
            self._applied[:, body, :2] += self._episode.redrawn(i, "newton", timer.count) * along

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
