"""A bundle as what is swept: its programs act in every world, by the runtime that a robot has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from metarl.core import trust
from metarl.core.errors import UserError
from metarl.core.info import PolicyInfo
from metarl.core.registry import make_family
from metarl.core.types import Transition
from metarl.export.runtime import Bundle, BundleError, BundlePolicy
from metarl.run.records import Origin
from metarl.run.subject import Subject
from metarl.sim.make import make_env

State = list[BundlePolicy]


class BundleActor:
    """A bundle behind the protocol of policies: one robot's runtime for each world, in turn."""

    def __init__(self, bundle: Bundle, info: PolicyInfo) -> None:
        self.info, self.noise_size, self._bundle = info, bundle.noise_size, bundle
        self._kept = torch.from_numpy(bundle.noise_kept)

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> State:
        """See `Policy.initial_state`."""
        return [BundlePolicy(self._bundle) for _ in range(n)]

    def act(
        self, obs: Float32[Tensor, "N O"], state: State, noise: Float32[Tensor, "N Z"], deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], State]:
        """See `Policy.act`."""
        drawn = (noise * self._kept if deterministic else noise).numpy()
        rows = [one.act(seen, own) for one, seen, own in zip(state, obs.numpy(), drawn, strict=True)]
        return torch.from_numpy(np.stack(rows)), state

    def observe(self, state: State, transition: Transition) -> State:
        """See `Policy.observe`."""
        led = (transition.reward.tolist(), transition.final_obs.numpy(), transition.terminated.tolist())
        for one, reward, seen, terminated, action in zip(state, *led, transition.action.numpy(), strict=True):
            one.observe(reward, seen, terminated, action)
        return state

    def end_episode(self, state: State, worlds: Bool[Tensor, "N"]) -> State:
        """See `Policy.end_episode`."""
        for world in worlds.nonzero()[:, 0].tolist():
            state[world].end_episode()
        return state


def is_bundle(source: Any) -> bool:
    """Whether a path is that of a bundle."""
    return isinstance(source, str | Path) and (Path(source) / "contract.json").is_file()


def bundle_subject(path: Path, trust_code: bool = False, disturbances: str = "") -> Subject:
    """The policy of a bundle on the family that it was trained on; `UserError` where either is not as it has to be."""
    try:
        bundle = Bundle.read(path)
    except BundleError as error:
        raise UserError(str(error)) from None
    run = bundle.contract.get("run")
    told = run if isinstance(run, dict) else {}
    name, episodes = str(told.get("family", "")), int(bundle.contract.get("episodes_per_trial", 1))
    trust.require(name, path / "contract.json", trust_code)
    family = make_family(name, disturbances)
    with make_env(family, 1, episodes_per_trial=episodes, threads=1) as env:
        info = env.info
    ours = [(part.name, part.size) for part in bundle.observation]
    theirs = [(part.name, part.size) for part in info.observation]
    if ours != theirs:
        raise UserError(f"{path} observes {_listed(ours)}, but the family {name} tells {_listed(theirs)}")
    origin = Origin(
        agent=str(told.get("agent", "")),
        family=name,
        episode_steps=int(bundle.contract.get("episode_steps", 0)),
        adapts=bool(bundle.contract.get("adapts", True)),
    )
    return Subject(BundleActor(bundle, info), family, origin, episodes)


def _listed(parts: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({size})" for name, size in parts)
