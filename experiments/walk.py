"""Train a quadruped to walk with memoryless PPO (Stable-Baselines3) on flat ground, measure its gait and film it.

    python experiments/walk.py train --minutes 25 --output runs/walk
    python experiments/walk.py measure runs/walk
    python experiments/walk.py film runs/walk --output videos/quadruped_walk.mp4

The policy observes the command (forward velocity and turn rate), which is drawn anew for each episode. `--bodies`
trains on the bodies of quadruped-body instead of the nominal one: domain randomisation without adaptation.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from safetensors.torch import load_file, save_file
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor
from torch.nn import functional

from metarl.core.files import write_json
from metarl.core.info import PolicyInfo
from metarl.core.tasks import Tasks
from metarl.envs.quadruped import FEET, to_trunk, upward
from metarl.envs.quadruped_tasks import QuadrupedBody, QuadrupedCommand
from metarl.rl.policy import PolicyModule
from metarl.run.logs import provenance
from metarl.sim.adapters.stable_baselines3 import EpisodeVecEnv
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import MujocoEnv
from metarl.video.recorder import VideoConfig, record

WORLDS, ROLLOUT_STEPS = 256, 25
CLIP, GAMMA = 10.0, 0.97  # bound of normalised observations, discount
LOG_EVERY = 20  # rollouts
SPEEDS, TURNS, REPEATS = (0.3, 0.5, 0.7, 0.9, 1.0), (-0.5, 0.0, 0.5), 8
FILMED = ((0.3, 0.0), (1.0, 0.0), (0.6, 0.5), (0.8, -0.5))
CONTACT = 1.0  # [N] on a foot that counts as being on the ground
FOOT_RADIUS = 0.02  # [m]


def train(
    output: Path = Path("runs/walk"),
    minutes: float = 25.0,
    seed: int = 1,
    threads: int = 2,
    bodies: bool = False,
) -> None:
    """Train for a time and save the policy with its normalisation."""
    begun_as = origin()
    torch.set_num_threads(threads)
    space = QuadrupedBody.space
    env = make_env(QuadrupedBody(), WORLDS, episodes_per_trial=1, threads=threads)
    sample = (lambda rng: space.sample("train", WORLDS, rng)) if bodies else (lambda rng: space.nominal(WORLDS))
    envs = VecNormalize(EpisodeVecEnv(env, sample, seed), clip_obs=CLIP, gamma=GAMMA)
    output.mkdir(parents=True, exist_ok=True)
    clock = Clock(minutes, output / "log.jsonl")
    model = PPO(
        "MlpPolicy",
        envs,
        learning_rate=1e-3,
        n_steps=ROLLOUT_STEPS,
        batch_size=1600,
        n_epochs=4,
        gamma=GAMMA,
        ent_coef=0.01,
        max_grad_norm=1.0,
        target_kl=0.03,
        seed=seed,
        device="cpu",
        policy_kwargs={"net_arch": [128, 128], "log_std_init": math.log(0.5), "activation_fn": torch.nn.ELU},
    )
    model.lr_schedule = lambda remaining: 1e-3 * max(clock.left(), 0.05)  # falls with the time, not the steps
    model.learn(10**12, callback=clock)
    save_file(actor_tensors(model, envs), output / "walker.safetensors")
    write_json(output / "training.json", begun_as)


def origin() -> dict[str, Any]:
    """Command, versions and machine of this process."""
    return provenance([]) | {"command": shlex.join(["python", *sys.argv])}


class Clock(BaseCallback):
    """Stops the training after a time, and logs the mean reward per step and the number of falls."""

    def __init__(self, minutes: float, path: Path) -> None:
        super().__init__()
        self._seconds, self._path, self._begun = 60.0 * minutes, path, time.monotonic()
        self._reward, self._falls, self._rollouts = 0.0, 0, 0
        path.write_text("")

    def left(self) -> float:
        """Share of the time that is left."""
        return max(0.0, 1.0 - (time.monotonic() - self._begun) / self._seconds)

    def _on_step(self) -> bool:
        self._reward += float(np.mean(self.training_env.get_original_reward()))
        ended = [info for info in self.locals["infos"] if "terminal_observation" in info]
        self._falls += sum(not info["TimeLimit.truncated"] for info in ended)
        return self.left() > 0.0

    def _on_rollout_end(self) -> None:
        self._rollouts += 1
        if self._rollouts % LOG_EVERY:
            return
        row = {
            "seconds": round(time.monotonic() - self._begun),
            "steps": self.num_timesteps,
            "reward_per_step": round(self._reward / LOG_EVERY / ROLLOUT_STEPS, 4),
            "falls": self._falls,
            "std": round(float(self.model.policy.log_std.detach().exp().mean()), 3),
        }
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._reward, self._falls = 0.0, 0


def actor_tensors(model: PPO, envs: VecNormalize) -> dict[str, Tensor]:
    """The tensors that acting needs: the actor's layers, and mean and deviation of the observations."""
    network, norm = model.policy, envs.obs_rms
    layers = [layer for layer in network.mlp_extractor.policy_net if isinstance(layer, torch.nn.Linear)]
    tensors = {"obs_mean": torch.tensor(norm.mean), "obs_std": torch.tensor(np.sqrt(norm.var + envs.epsilon))}
    for number, layer in enumerate([*layers, network.action_net]):
        tensors |= {f"{number}.weight": layer.weight.detach(), f"{number}.bias": layer.bias.detach()}
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}


class Walker(PolicyModule):
    """The mean action of the trained actor as a policy without adaptation.

    It observes the `command` (N, 2) as well, which quadruped-command hides in its task.
    """

    def __init__(self, run: Path, command: Tensor, info: PolicyInfo) -> None:
        super().__init__(info)
        self.noise_size = 0
        self._command = command.float()
        self._tensors = load_file(run / "walker.safetensors")
        self._layers = sum(name.endswith(".weight") for name in self._tensors)

    def act(self, obs: Tensor, state: Any, noise: Tensor, deterministic: bool = False) -> tuple[Tensor, Any]:
        """A perceptron of the normalised observation."""
        tensors = self._tensors
        x = ((torch.cat((obs, self._command), dim=1) - tensors["obs_mean"]) / tensors["obs_std"]).clamp(-CLIP, CLIP)
        for layer in range(self._layers):
            x = functional.linear(x, tensors[f"{layer}.weight"], tensors[f"{layer}.bias"])
            x = functional.elu(x) if layer < self._layers - 1 else x
        return x, state


def measure(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """Measure tracking error, cost of transport and gait on a grid of commands in the second half of an episode."""
    grid = [(speed, turn) for speed in SPEEDS for turn in TURNS]
    command = torch.tensor(grid, dtype=torch.float64).repeat_interleave(REPEATS, dim=0)
    series, fell, weight = walk(run, command)
    mean = {name: value.mean(dim=0) for name, value in series.items()}
    cost = mean["power"] / (weight * mean["forward"])
    straight = (command[:, 1] == 0.0) & (command[:, 0] >= 0.7)
    down = series["contact"][:, straight]
    switches = (down[1:] != down[:-1]).double().mean() / 2.0 / QuadrupedBody.control_step
    summary = {
        "velocity_error": float((mean["forward"] - command[:, 0]).abs().mean()),
        "velocity_error_worst": float((mean["forward"] - command[:, 0]).abs().max()),
        "turn_error": float((mean["turn"] - command[:, 1]).abs().mean()),
        "sideways": float(mean["sideways"].abs().mean()),
        "cost_of_transport": float(cost.mean()),
        "fell": int(fell.sum()),
        "steps_per_second_and_foot": float(switches),
        "share_without_contact": float((down.sum(dim=2) == 0).double().mean()),
        # in a trot diagonal feet are down together (1), neighbours alternate (-1)
        "contact_correlation": torch.corrcoef((down - down.mean(dim=0)).flatten(0, 1).T).tolist(),
    }
    rows = []
    for i, (speed, turn) in enumerate(grid):
        of = slice(i * REPEATS, (i + 1) * REPEATS)
        row: dict[str, Any] = {"speed": speed, "turn": turn, "cost_of_transport": float(cost[of].mean())}
        row |= {k: float(mean[k][of].mean()) for k in ("forward", "sideways", "height", "lean")}
        row |= {"turned": float(mean["turn"][of].mean()), "contact": mean["contact"][of].mean(dim=0).tolist()}
        row["lift"] = series["lift"][:, of].amax(dim=0).mean(dim=0).tolist()
        rows.append(row)
        shares = " ".join(f"{share:.2f}" for share in row["contact"])
        lifts = " ".join(f"{lift:.3f}" for lift in row["lift"])
        print(
            f"{speed:.1f} m/s {turn:4.1f} rad/s: {row['forward']:.2f} m/s {row['turned']:5.2f} rad/s, cost "
            f"{row['cost_of_transport']:.2f}, height {row['height']:.3f} m, lean {row['lean']:.2f} rad, "
            f"contact {shares}, lift {lifts} m"
        )
    print(json.dumps(summary, indent=1))
    write_json(run / "gait.json", origin() | {"summary": summary, "commands": rows})


def walk(run: Path, command: Tensor) -> tuple[dict[str, Tensor], Tensor, float]:
    """Play an episode of each command (N, 2).

    Returns series (T, N, ...) of its second half, which worlds fell, and the robot's weight [N].
    """
    family = QuadrupedCommand()
    env = make_env(family, len(command), episodes_per_trial=1)
    assert isinstance(env, MujocoEnv)
    policy, noise = Walker(run, command, env.info), torch.empty(len(command), 0)
    obs = env.begin(Tasks({"velocity": command[:, 0], "turn": command[:, 1]}), key=0)
    physics = env.physics
    qpos, qvel, force = physics.bind("qpos"), physics.bind("qvel"), physics.bind("actuator_force", fresh=False)
    touch, feet = physics.bind("sensordata", fresh=False), physics.bind("site_xpos", fresh=False)
    fell = torch.zeros(len(command), dtype=torch.bool)
    rows: list[dict[str, Tensor]] = []
    for t in range(family.episode_steps - 1):
        step = env.step(policy.act(obs, None, noise)[0])
        obs, fell = step.obs, fell | step.terminated
        if t >= family.episode_steps // 2:
            velocity = to_trunk(qpos, qvel[:, :3])
            rows.append(
                {
                    "forward": velocity[:, 0],
                    "sideways": velocity[:, 1],
                    "turn": qvel[:, 5].clone(),
                    "power": (force * qvel[:, 6:]).clamp(min=0.0).sum(dim=1),
                    "height": qpos[:, 2].clone(),
                    "lean": torch.asin(upward(qpos)[:, :2].norm(dim=1).clamp(max=1.0)),
                    "contact": (touch[:, : len(FEET)] > CONTACT).double(),
                    "lift": feet[:, : len(FEET), 2] - FOOT_RADIUS,
                }
            )
    weight = float(physics.model.body_mass.sum()) * 9.81
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}, fell, weight


def film(run: Annotated[Path, tyro.conf.Positional], output: Path = Path("videos/quadruped_walk.mp4")) -> None:
    """Film one episode of each of four commands."""
    command = torch.tensor(FILMED, dtype=torch.float64)
    tasks = Tasks({"velocity": command[:, 0], "turn": command[:, 1]})
    config = VideoConfig(size=(336, 224), title="a quadruped follows commands: memoryless PPO on flat ground")
    with make_env(QuadrupedCommand(), 1, episodes_per_trial=1) as env:
        policy = Walker(run, command, env.info)
    recording = record(policy, QuadrupedCommand(), tasks, 1, output, config)
    print(f"{recording.path}: {recording.seconds:.1f} s")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"train": train, "measure": measure, "film": film})
