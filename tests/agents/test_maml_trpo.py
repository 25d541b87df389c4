"""MAML-TRPO: adaptation through the state, what a meta-update sees of it, and each trap of the field."""

import dataclasses

import pytest
import torch
from as_on_a_gpu import needs_cuda
from test_rl2 import FragileSign, Sign
from torch.distributions import Independent, Normal, kl_divergence
from torch.func import vmap
from torch.utils._pytree import tree_map

from metarl.agents.configs import MamlTrpoConfig
from metarl.agents.maml_trpo import MamlTrpo
from metarl.core import seeding
from metarl.core.config import ConfigError
from metarl.core.errors import Diverged, UserError
from metarl.core.registry import make_family
from metarl.core.types import Transition
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.objectives import gaussian_kl
from metarl.rl.stages import times_adapted
from metarl.rl.state import load_state, state_tensors
from metarl.rl.trust_region import conjugate_gradient
from metarl.run.collect import collect, trial_steps
from metarl.run.evaluate import evaluate
from metarl.sim.mujoco.mujoco_env import MujocoEnv

CONFIG = MamlTrpoConfig(shots=3, hidden_size=16, initial_std=1.0, inner_step_size=0.1, max_kl=0.01)
FAMILIES = pytest.mark.parametrize("family", [Sign(), FragileSign()], ids=["sign", "fragile"])


def make(family, num_worlds=6, episodes=6, episode_steps=None, on="cpu", **changes):
    env = MujocoEnv(family, num_worlds, episodes_per_trial=episodes, episode_steps=episode_steps, threads=1)
    config = dataclasses.replace(CONFIG, **changes)
    return env, MamlTrpo(config, env.info, seeding.generator(0, "init"), on)


def trial(env, learner, number=0, deterministic=False):
    tasks = env.family.space.sample("train", env.num_worlds, seeding.rng(0, "tasks", number))
    key = seeding.key(0, "collect", number)
    return collect(env, learner.behaviour, tasks, key, record=learner.record, deterministic=deterministic)


def train(env, learner, iterations, first=0):
    for number in range(first, first + iterations):
        metrics = learner.update(trial(env, learner, number), seeding.generator(0, "update", number), 0.0)
    return metrics


def objective_of(learner, segment):
    stages, sampled, _ = learner.stages(segment)
    return MetaObjective(learner.policy.inner, stages, sampled), stages, sampled


# ------------------------------------------------------------------------------------------- the state adapts


def test_shots_counted_in_steps_last_as_long_where_robots_fall():
    """Three episodes of 8 steps: the policy adapts at the first end of an episode after more than 16 of them."""
    ended = torch.zeros(60, 3, dtype=torch.bool)
    ended[7::8, 0] = True  # never falls
    ended[4::5, 1] = True  # every 5 steps
    ended[[2, 10, 18, 26, 34, 42, 50], 2] = True  # once
    times = times_adapted(ended, 17)
    assert [(times[:, world].diff() > 0).nonzero()[:, 0].tolist() for world in range(3)] == [
        [23, 47],
        [19, 39],
        [18, 42],
    ]


@FAMILIES
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_state_adapts_after_as_many_episodes_as_shots(family, inner_steps):
    """Where robots fall, worlds adapt at different times, each after its own third episode."""
    env, learner = make(family, episodes=3 * inner_steps + 2, inner_steps=inner_steps, action_scale=1.0)
    train(env, learner, 1)
    tasks = family.space.sample("train", 6, seeding.rng(0, "tasks", 7))
    episodes, adapted_at, falls = torch.zeros(6, dtype=torch.long), [set() for _ in range(6)], 0
    before = learner.policy.initial_state(6).parameters
    for now in trial_steps(env, learner.policy, tasks, seeding.key(0, "collect", 7)):
        changed = (now.state.parameters != before).any(dim=1)
        for world in changed.nonzero()[:, 0].tolist():
            adapted_at[world].add(int(episodes[world]))
        before = now.state.parameters
        episodes += now.step.ended
        falls += int(now.step.terminated.sum())
    assert (falls > 0) == (family.limit < 1)
    assert adapted_at == [{3 * (i + 1) for i in range(inner_steps)}] * 6
    assert bool((now.state.num_adapted == inner_steps).all())


@FAMILIES
@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize(
    "rule", [{}, {"inner_step_size": "learned"}, {"learned_optimizer": True}, {"shots_in": "steps"}]
)
def test_the_update_adapts_as_the_policy_did(family, inner_steps, rule):
    """From the segment alone the meta-update finds the parameters that acted, ratios of one and no divergence."""
    env, learner = make(family, episodes=3 * inner_steps + 2, inner_steps=inner_steps, action_scale=1.0, **rule)
    train(env, learner, 2)
    segment = trial(env, learner, 7)
    objective, stages, sampled = objective_of(learner, segment)
    inner = learner.policy.inner
    adapted = vmap(inner.trajectory, in_dims=(None, 0))(inner.read(), stages)[:, -1]
    torch.testing.assert_close(adapted, segment.final_state.parameters, rtol=0, atol=2e-5)
    assert (adapted - inner.read()[: inner.policy.size]).abs().max() > 1e-3
    mean, log_std = vmap(inner.policy)(adapted, sampled.stage.obs)
    valid = sampled.stage.weight > 0
    torch.testing.assert_close(mean[valid], sampled.mean[valid], rtol=0, atol=1e-4)
    torch.testing.assert_close(log_std, sampled.log_std, rtol=0, atol=1e-5)
    loss, kl = objective.evaluate(inner.read())
    assert abs(loss) < 1e-4  # advantages have mean zero
    assert abs(kl) < 1e-6


def test_log_probabilities_and_divergences_are_summed_over_actions():
    """Trap: a mean over the dimensions takes the d-th root of every ratio, and loosens the trust region d times."""
    env, learner = make(make_family("half-cheetah-dir"), episode_steps=10)
    segment = trial(env, learner)
    _, stages, sampled = objective_of(learner, segment)
    mean, std = segment.extras["mean"][:30], segment.extras["log_std"][:30].exp()
    expected = Independent(Normal(mean, std), 1).log_prob(10.0 * segment.action[:30])
    torch.testing.assert_close(stages[0].log_prob.T, expected, rtol=1e-4, atol=1e-4)
    other_mean, other_log_std = sampled.mean + 0.3, sampled.log_std[:, None] - 0.2
    ours = gaussian_kl(sampled.mean, sampled.log_std[:, None], other_mean, other_log_std)
    normals = [
        Independent(Normal(m, s.exp().expand_as(m)), 1)
        for m, s in ((sampled.mean, sampled.log_std[:, None]), (other_mean, other_log_std))
    ]
    torch.testing.assert_close(ours, kl_divergence(*normals))


def test_the_action_scale_is_the_lineages():
    """Trap: α belongs to a network whose output of ±10 is an action of ±1, with an initial σ of 1: a tenth of it."""
    env, learner = make(Sign(), num_worlds=500)
    segment = trial(env, learner)
    first = segment.action[:24, :, 0] - segment.extras["mean"][:24, :, 0] / 10.0
    assert float(first.std()) == pytest.approx(0.1, rel=0.02)
    _, without = make(Sign(), num_worlds=500, action_scale=1.0)
    assert float(trial(env, without).action[:24].std()) == pytest.approx(1.0, rel=0.05)


def test_it_samples_until_it_has_adapted_even_if_deterministic():
    """An action at the mean has no policy gradient: exploring is part of the algorithm, not of the evaluation."""
    env, learner = make(Sign())
    train(env, learner, 1)
    policy, segment = learner.policy, trial(env, learner, 7, deterministic=True)
    sampled = trial(env, learner, 7)
    torch.testing.assert_close(segment.action[:24], sampled.action[:24])
    assert bool((segment.action[24:] != sampled.action[24:]).all())
    weights = policy.inner.policy.named(segment.final_state.parameters)
    for obs, action in zip(segment.obs[24:], segment.action[24:], strict=True):
        mean = policy.network.forward_each(weights, policy.obs_norm(obs))[0]
        torch.testing.assert_close(action, mean / 10.0)


def test_a_state_is_a_value():
    """Stored and taken up again, it adapts as the one that went on, and tells the tasks apart."""
    env, learner = make(Sign())
    policy = learner.policy
    obs, ended = torch.zeros(6, env.observation_size), torch.ones(6, dtype=torch.bool)

    def episode(state, reward):
        action = torch.full((6, 1), 0.05)
        transition = Transition(obs + reward, action, torch.full((6,), float(reward)), obs, ~ended)
        for _ in range(8):
            state = policy.observe(state, transition)
        return policy.end_episode(state, ended)

    two = episode(episode(policy.initial_state(6), 1.0), -1.0)
    stored = state_tensors(two)
    first = episode(two, 0.5).parameters
    assert not torch.equal(episode(load_state(policy, stored), 2.0).parameters, first)
    assert torch.equal(episode(load_state(policy, stored), 0.5).parameters, first)


def test_steps_beyond_the_longest_episode_are_left_out_of_the_adaptation():
    """A robot of one's own may play longer than those of the training: nothing is written beyond the room there is."""
    env, learner = make(Sign())
    policy, ended = learner.policy, torch.ones(6, dtype=torch.bool)
    state, obs = policy.initial_state(6), torch.zeros(6, env.observation_size)
    transition = Transition(obs, torch.full((6, 1), 0.05), torch.ones(6), obs, ~ended)
    for length in (40, 1, 1):
        for _ in range(length):
            state = policy.observe(state, transition)
        state = policy.end_episode(state, ended)
    assert bool((state.num_adapted == 1).all()) and bool(torch.isfinite(state.parameters).all())


# --------------------------------------------------------------------------------------------- the meta-update


def test_a_rejected_line_search_leaves_every_parameter_bit_identical(monkeypatch):
    """Trap: returning the last trial instead of the parameters from before."""
    env, learner = make(Sign())
    train(env, learner, 1)
    before = learner.policy.inner.read()
    honest = MetaObjective.evaluate
    monkeypatch.setattr(MetaObjective, "evaluate", lambda self, meta: (honest(self, meta)[0], 1.0))
    metrics = train(env, learner, 1, first=1)
    assert metrics["train/step"] == metrics["train/kl"] == 0.0
    assert torch.equal(learner.policy.inner.read(), before)
    monkeypatch.undo()
    assert train(env, learner, 1, first=2)["train/step"] > 0
    assert not torch.equal(learner.policy.inner.read(), before)


@pytest.mark.parametrize("outer", ["trpo", "ppo"])
def test_a_gradient_that_is_not_finite_changes_nothing_and_three_end_the_training(monkeypatch, outer):
    env, learner = make(Sign(), outer=outer, ppo_epochs=1)
    before = learner.policy.inner.read()
    for name in ("gradient", "clipped_gradient"):
        monkeypatch.setattr(MetaObjective, name, lambda self, meta, *rest: torch.full_like(meta, float("nan")))
    for number in range(2):
        assert train(env, learner, 1, first=number)["train/skipped_updates"] == 1.0
    with pytest.raises(Diverged, match="3 update steps in a row were not finite; try a smaller inner_step_size"):
        train(env, learner, 1, first=2)
    assert torch.equal(learner.policy.inner.read(), before)


def test_the_divergence_stays_within_the_trust_region():
    env, learner = make(Sign(), num_worlds=16)
    taken = []
    for number in range(8):
        metrics = train(env, learner, 1, first=number)
        if metrics["train/step"] > 0.0:  # early on, a line search may find nothing
            taken.append(metrics)
    assert len(taken) >= 4
    assert all(0.0 < metrics["train/kl"] <= CONFIG.max_kl and metrics["train/improvement"] > 0.0 for metrics in taken)


def test_an_episode_that_the_trials_end_cuts_short_is_left_out():
    env, learner = make(FragileSign(), num_worlds=24, action_scale=1.0)
    segment = trial(env, learner)
    _, _, sampled = objective_of(learner, segment)
    length = segment.ended.long().flip(0)[1:].argmax(dim=0) + 1  # steps of each world's last episode
    short = (length < 8) & ~segment.terminated[-1]
    assert 0 < int(short.sum()) < 24
    for world in range(24):
        weight = sampled.stage.weight[world]
        assert bool((weight[-int(length[world]) :] == 0).all()) == bool(short[world])


def test_where_nobody_falls_shots_in_steps_are_shots_in_episodes():
    found = []
    for shots_in in ("steps", "episodes"):
        env, learner = make(Sign(), episodes=8, shots_in=shots_in)
        train(env, learner, 2)
        found.append(learner.policy.inner.read())
    assert torch.equal(*found)


def test_a_trial_too_short_to_adapt_is_one_sentence():
    env, learner = make(Sign(), episodes=3)
    with pytest.raises(UserError, match=r"1 x 3 shots need --episodes-per-trial of at least 4"):
        train(env, learner, 1)


@pytest.fixture(scope="module")
def plain():
    """What three updates make of the parameters without any option."""
    env, learner = make(Sign(), episodes=8)
    train(env, learner, 3)
    return learner.policy.inner.read()


@pytest.mark.parametrize(
    "changes",
    [
        {"first_order": True},
        {"inner_objective": "lvc"},
        {"inner_objective": "lvc", "outer": "ppo"},
        {"inner_step_size": "learned"},
        {"learned_optimizer": True},
        {"adapted_layers": "last"},
        {"inner_steps": 2},
        {"exploration_weight": 1.0},
    ],
    ids=lambda changes: "-".join(f"{k}={v}" for k, v in changes.items()),
)
def test_every_option_changes_what_is_learned_and_resumes_exactly(changes, plain):
    env, learner = make(Sign(), episodes=8, **changes)
    train(env, learner, 2)
    _, restored = make(Sign(), episodes=8, **changes)
    restored.load_state_dict(learner.state_dict())
    for one in (learner, restored):
        train(env, one, 1, first=2)
    assert all(torch.equal(value, restored.state_dict()[key]) for key, value in learner.state_dict().items())
    size = learner.policy.inner.policy.size
    assert not torch.equal(plain, learner.policy.inner.read()[:size])


def test_only_the_last_layer_adapts_if_asked():
    env, learner = make(Sign(), adapted_layers="last")
    train(env, learner, 1)
    inner = learner.policy.inner
    moved = trial(env, learner, 3).final_state.parameters - inner.read()
    named = inner.policy.named(moved)
    assert {name for name, change in named.items() if change.abs().max() > 0} == {"layers.2.weight", "layers.2.bias"}
    _, learner = make(Sign(), adapted_layers="last", learned_optimizer=True)
    assert learner.policy.rule.size == sum(named[f"layers.2.{part}"][0].numel() for part in ("weight", "bias"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner_step_size": -0.1}, "inner_step_size = -0.1 is out of range"),
        ({"shots": 0}, r"shots = 0 is out of range: it must be in \[1, 10000\]"),
        ({"learned_optimizer": True, "inner_step_size": "learned"}, "learned_optimizer = True is out of range"),
        ({"max_kl": 0.0}, "max_kl = 0.0 is out of range"),
        (
            {"exploration_weight": 1.0, "outer": "ppo"},
            "exploration_weight = 1.0 is out of range: it must be 0 with outer",
        ),
    ],
)
def test_a_value_out_of_range_is_one_sentence(values, message):
    with pytest.raises(ConfigError, match=message):
        MamlTrpoConfig(**values)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_the_parts_of_an_update_are_those_in_float64(device):
    """Loss, gradient, Fisher product and one step of the conjugate gradient: more of them amplify any rounding."""
    env, learner = make(Sign())
    stages, sampled, _ = learner.stages(trial(env, learner))
    inner, found = learner.policy.inner, []
    direction = torch.randn(inner.read().shape, generator=seeding.generator(0, "direction"), dtype=torch.float64)
    for at, dtype in (("cpu", torch.float64), (device, torch.float32)):
        objective = MetaObjective(inner, *tree_map(lambda x, at=at, dtype=dtype: x.to(at, dtype), (stages, sampled)))
        meta = inner.read().to(at, dtype)
        product = objective.thinned(2).fisher(meta)
        loss, gradient = torch.tensor(objective.evaluate(meta)), objective.gradient(meta)
        parts = loss, gradient, product(direction.to(meta)), conjugate_gradient(product, -gradient, 1)
        found.append([part.double().cpu() for part in parts])
    for exact, part in zip(*found, strict=True):
        assert (part - exact).norm() <= 1e-4 * exact.norm() + 1e-7


@needs_cuda
def test_it_trains_on_cuda():
    env, learner = make(Sign(), on="cuda")
    before = learner.policy.inner.read()
    assert train(env, learner, 2)["train/kl"] > 0.0
    assert (learner.policy.inner.read() - before).norm() > 0.0


# ------------------------------------------------------------------------------------------------------ learning


def test_it_learns_to_adapt_on_held_out_goals():
    """Point-goal: after seconds of training, one gradient step brings the robot closer to goals it never saw."""
    family = make_family("point-goal")
    env = MujocoEnv(family, 20, episodes_per_trial=10, threads=1)
    learner = MamlTrpo(MamlTrpoConfig(), env.info, seeding.generator(0, "init"))
    train(env, learner, 16)
    tasks = family.space.fixed("test", 50)
    returns = evaluate(learner.policy, family, tasks, 10, deterministic=False).returns
    gain = returns[:, 5:].mean(axis=1) - returns[:, :5].mean(axis=1)
    assert gain.mean() > 3.0 * gain.std() / len(gain) ** 0.5
