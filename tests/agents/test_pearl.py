"""PEARL: what its buffers hold, which loss moves what, and each trap of the field."""

import dataclasses
import re

import pytest
import torch
from as_on_a_gpu import needs_cuda, on_a_gpu
from hypothesis import given, settings, strategies as st
from test_rl2 import FragileSign, Sign

from metarl.agents.configs import PearlConfig
from metarl.agents.pearl import Pearl
from metarl.core import seeding
from metarl.core.config import ConfigError, TrainConfig
from metarl.core.errors import UserError
from metarl.rl.learner import require_device
from metarl.run import checkpoint, folder
from metarl.run.collect import collect, trial_steps
from metarl.run.logs import console
from metarl.run.run import Run
from metarl.run.train import Training
from metarl.sim.mujoco.mujoco_env import MujocoEnv

CONFIG = PearlConfig(
    latent_size=3,
    hidden_size=16,
    encoder_size=16,
    initial_steps=0,
    num_updates=5,
    meta_batch=4,
    batch_size=8,
    context_size=8,
    num_slots=8,
    replay_size=200,
)
FAMILIES = pytest.mark.parametrize("family", [Sign(), FragileSign()], ids=["sign", "fragile"])


def make(family=None, num_worlds=4, episodes=5, on="cpu", **changes):
    env = MujocoEnv(family or Sign(), num_worlds, episodes_per_trial=episodes, threads=1)
    config = dataclasses.replace(CONFIG, **changes)
    return env, Pearl(config, env.info, seeding.generator(0, "init"), on)


def trial(env, learner, number=0, task_number=None):
    tasks = env.family.space.sample("train", env.num_worlds, seeding.rng(0, "tasks", number))
    key = seeding.key(0, "collect", number)
    return collect(env, learner.behaviour, tasks, key, record=learner.record, task_number=task_number)


def train(env, learner, numbers):
    for number in numbers:
        metrics = learner.update(trial(env, learner, number), seeding.generator(0, "update", number), 0.0)
    return metrics


def held(buffer, slot):
    return buffer.rows[slot, : int(buffer.size[slot])]


# ---------------------------------------------------------------------------------------------------- the belief


@FAMILIES
def test_z_is_drawn_once_per_episode_and_of_the_posterior_after_the_prior_ones(family):
    env, learner = make(family)
    policy, tasks = learner.policy, env.family.space.fixed("train", 4)
    before, episode = None, torch.zeros(4, dtype=torch.long)
    for now in trial_steps(env, policy, tasks, seeding.key(0, "collect")):
        if before is not None:
            changed = (now.state.z != before.z).any(dim=1)
            assert torch.equal(changed, now.episode_start)
        assert torch.equal(now.state.episode, episode)
        assert torch.equal(learner.policy.exploring(now.before), episode < 2)
        episode, before = episode + now.step.ended, now.state
    assert int(episode.min()) >= 5


def test_a_sharp_posterior_decides_z_and_the_prior_phase_ignores_it():
    _, learner = make()
    policy = learner.policy
    state = policy.initial_state(2)._replace(
        weighted=torch.full((2, 3), 5e8), precision=torch.full((2, 3), 1e8), episode=torch.tensor([0, 1])
    )
    state = policy.end_episode(state, torch.tensor([True, True]))
    _, after = policy.act(torch.zeros(2, 2), state, torch.randn(2, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(after.z[1], torch.full((3,), 5.0), rtol=0, atol=1e-2)
    assert (after.z[0] - 5.0).abs().max() > 0.5


@pytest.mark.parametrize("use_next_obs_in_context", [False, True])
def test_the_belief_is_the_posterior_the_learner_infers(use_next_obs_in_context):
    """Step by step from transitions, and all at once from the rows of the context buffer."""
    env, learner = make(episodes=2, use_next_obs_in_context=use_next_obs_in_context)
    segment = trial(env, learner)
    learner.store(segment)
    context = torch.stack([held(learner.context, slot) for slot in range(4)])
    mean, variance = learner.policy.infer(context[..., : learner.policy.context_width])
    belief = segment.final_state
    torch.testing.assert_close(mean, belief.weighted / belief.precision, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(variance, 1.0 / belief.precision, rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------------------------------- the buffers


@FAMILIES
def test_every_transition_is_stored_with_the_observation_it_led_to(family):
    """Traps: the last transition dropped, the next episode's first observation in it, time limits as terminal."""
    env, learner = make(family)
    segment = trial(env, learner)
    learner.store(segment)
    assert segment.truncated.any()
    assert bool(segment.terminated.any()) == (family.limit < 1)
    for world in range(4):
        obs, action, reward, final_obs, terminated = held(learner.replay, world).split((2, 1, 1, 2, 1), dim=1)
        assert torch.equal(obs, segment.obs[:, world])
        assert torch.equal(action, segment.action[:, world])
        assert torch.equal(reward[:, 0], segment.reward[:, world])
        assert torch.equal(final_obs, segment.final_obs[:, world])
        assert torch.equal(terminated[:, 0].bool(), segment.terminated[:, world])
        prior = segment.extras["prior"][:, world]
        assert torch.equal(held(learner.context, world), held(learner.replay, world)[prior])


def test_a_step_that_diverged_is_not_learnt_from():
    env, learner = make()
    segment = trial(env, learner)
    diverged = segment.diverged.clone()
    diverged[3, 1] = True
    learner.store(dataclasses.replace(segment, diverged=diverged))
    assert learner.replay.size[:4].tolist() == [40, 39, 40, 40]


@given(st.lists(st.lists(st.integers(0, 20), min_size=4, max_size=4), min_size=1, max_size=5))
@settings(max_examples=15)
def test_context_is_of_the_task_s_last_trial_alone(numbers):
    """Rows are marked by task and trial: a slot's context is its present task's, and of its last trial."""
    env, learner = make(num_slots=21, replay_size=500)
    made, last = trial(env, learner), {}
    for i, number in enumerate(numbers):
        task = torch.tensor(number)
        mark = torch.full_like(made.reward, float(i)).unsqueeze(-1)
        obs = torch.cat((task.float().expand_as(made.reward).unsqueeze(-1), mark), dim=-1)
        learner.store(dataclasses.replace(made, obs=obs, task_number=task.expand_as(made.reward)))
        last |= {n: i for n in number}
    for slot in range(21):
        context, replay = held(learner.context, slot), held(learner.replay, slot)
        assert set(context[:, 0].tolist()) == ({float(slot)} if slot in last else set())
        assert set(context[:, 1].tolist()) == ({float(last[slot])} if slot in last else set())
        assert set(replay[:, 0].tolist()) == set(context[:, 0].tolist())


def test_a_new_task_in_a_slot_empties_it():
    env, learner = make()
    for first in (0, 4, 8):
        learner.store(trial(env, learner, task_number=torch.arange(first, first + 4)))
    assert learner.replay.size.tolist() == [40] * 8
    assert learner._task_of_slot.tolist() == [8, 9, 10, 11, 4, 5, 6, 7]
    learner.store(trial(env, learner, task_number=torch.arange(8, 12)))
    assert learner.replay.size.tolist() == [80] * 4 + [40] * 4
    with pytest.raises(UserError, match="num_slots = 8 is too small"):
        learner.store(trial(env, learner, task_number=torch.tensor([0, 8, 1, 2])))


def test_updates_begin_after_the_initial_steps():
    env, learner = make(initial_steps=2 * 4 * 40)
    assert "train/kl" not in train(env, learner, [0])
    assert "train/kl" in train(env, learner, [1])


# ------------------------------------------------------------------------------------------------- the gradients


def objectives(learner):
    generator = seeding.generator(0, "objective")
    slots = torch.arange(4)
    context = learner.context.sample(slots, 8, generator)
    batch = learner.replay.sample(slots, 8, generator).flatten(0, 1)
    drawn, *noise = learner.noise(slots, context, batch, generator)
    loss, kl, z, _ = learner.critic_objective(slots, context, batch, drawn, noise[0])
    return loss, kl, learner.actor_objective(batch, z.detach(), noise[1])[0]


def moved(learner, loss):
    """Which networks the loss has a gradient in."""
    learner.policy.zero_grad()
    learner._critic.zero_grad()
    loss.backward()
    networks = {"encoder": learner.policy.encoder, "actor": learner.policy.actor, "critic": learner._critic}
    return {
        name
        for name, network in networks.items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    }


def test_only_critics_loss_and_kl_move_the_encoder():
    env, learner = make()
    learner.store(trial(env, learner))
    loss, _, actor = objectives(learner)
    assert moved(learner, actor) == {"actor"}
    assert moved(learner, loss) == {"encoder", "critic"}
    assert moved(learner, objectives(learner)[1]) == {"encoder"}
    assert all(parameter.grad is None for parameter in learner._target.parameters())


@pytest.mark.parametrize("tasks", [1, 4])
def test_the_kl_does_not_grow_with_the_number_of_tasks(tasks):
    """Trap: a sum over tasks makes the weight depend on `meta_batch`."""
    env, learner = make()
    learner.store(trial(env, learner))
    context = learner.context.rows[:1, :16].repeat(tasks, 1, 1)
    batch = learner.replay.rows[0, :8].repeat(tasks, 1)
    slots = torch.zeros(tasks, dtype=torch.long)
    drawn, noise, _ = learner.noise(slots, context, batch, torch.Generator().manual_seed(0))
    _, kl, _, _ = learner.critic_objective(slots, context, batch, drawn, noise)
    _, one, _, _ = learner.critic_objective(slots[:1], context[:1], batch[:8], drawn[:1], noise[:8])
    torch.testing.assert_close(kl, one)


@pytest.mark.parametrize(("ready", "distinct"), [(6, 4), (2, 2)])
def test_a_gradient_step_s_tasks_are_distinct_where_there_are_enough_and_its_data_is_theirs(ready, distinct):
    """Rows are marked by their slot: the context's, and the batch's, eight to a task."""
    _, learner = make()
    for buffer in (learner.replay, learner.context):
        buffer.add(torch.arange(8), torch.arange(8.0)[:, None].expand(-1, buffer.rows.shape[2]))
    slots, context, batch = learner.draw(torch.arange(8)[-ready:], 50, torch.Generator().manual_seed(0))
    assert max(len(set(step)) for step in slots.tolist()) == distinct
    assert ready < 4 or min(len(set(step)) for step in slots.tolist()) == distinct
    assert set(slots.flatten().tolist()) == set(range(8 - ready, 8))
    assert torch.equal(context[..., 0], slots.float()[..., None].expand(-1, -1, 8))
    assert torch.equal(batch[..., 0], slots.float().repeat_interleave(8, dim=1))


def test_all_gradient_steps_are_taken_whatever_the_block(monkeypatch):
    """Their mean is recorded: 23 of 1, 2, ..., 45."""
    taken = []

    def step(*drawn):
        taken.append(drawn)
        return torch.full((5,), float(len(taken)))

    monkeypatch.setattr(Pearl, "gradient_step", step)
    env, learner = make(num_updates=45)
    learner.store(trial(env, learner))
    assert learner.gradient_steps(seeding.generator(0, "update")).tolist() == [23.0] * 5
    assert len(taken) == 45


def test_a_fixed_temperature_stays():
    env, learner = make(temperature=1.0, reward_scale=5.0)
    assert train(env, learner, [0, 1])["train/temperature"] == 1.0
    env, learner = make()
    assert train(env, learner, [0, 1])["train/temperature"] != 1.0


# ----------------------------------------------------------------------------------------- repeating and resuming


@FAMILIES
@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 1.0}, {"use_next_obs_in_context": True}, {"belief": "prototype"}]
)
def test_resuming_is_bit_exact(family, changes):
    env, whole = make(family, **changes)
    _, resumed = make(family, **changes)
    train(env, whole, [0, 1])
    resumed.load_state_dict(whole.state_dict())
    train(env, whole, [2, 3])
    train(env, resumed, [2, 3])
    state = whole.state_dict()
    assert state.keys() == resumed.state_dict().keys()
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in state.items())
    _, other = make(family, **changes)
    train(env, other, [0, 1, 2, 3])
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in state.items())


def test_older_checkpoints_have_an_optimiser_of_the_temperature():
    env, learner = make()
    train(env, learner, [0])
    state = learner.state_dict()
    key = "adam/{}/log_temperature/exp_avg"
    older = {name.replace("adam/actor/log_t", "adam/temperature/log_t"): value for name, value in state.items()}
    assert key.format("temperature") in older
    _, restored = make()
    restored.load_state_dict(older)
    assert torch.equal(restored.state_dict()[key.format("actor")], state[key.format("actor")])


def run_config(**changes):
    learner = dataclasses.replace(CONFIG, initial_steps=400, **changes)
    return TrainConfig(
        "pearl",
        "point-goal",
        learner,
        seed=3,
        total_steps=6 * 4 * 100,
        num_worlds=4,
        episodes_per_trial=5,
        train_tasks=8,
        threads=1,
    )


@pytest.mark.parametrize("belief", ["posterior", "prototype"])
def test_a_resumed_run_is_bit_identical_to_one_never_stopped(tmp_path, belief):
    config = run_config(belief=belief)
    whole = Training(folder.create(tmp_path / "whole", config, []), config)
    whole.execute(console())
    run = folder.create(tmp_path / "stopped", config, [])
    first = Training(run, config)
    while first.iteration < 3:
        first._iterate()
    first.save()
    second = Training(run, config)
    second.restore()
    assert second.execute(console()).finished
    expected = checkpoint.load(checkpoint.find(whole.run.checkpoints))[0]
    got = checkpoint.load(checkpoint.find(run.checkpoints))[0]
    assert expected.keys() == got.keys()
    assert all(torch.equal(value, got[name]) for name, value in expected.items())


def test_buffers_may_be_left_out_and_are_filled_anew(tmp_path):
    config = run_config(save_buffers=False)
    run = folder.create(tmp_path, config, [])
    first = Training(run, config)
    first._iterate()
    first._iterate()
    first.save()
    state = checkpoint.load(checkpoint.find(run.checkpoints))[0]
    assert not any(name.startswith(("replay/", "context/")) for name in state)
    second = Training(run, dataclasses.replace(config, learner=run_config(save_buffers=False).learner))
    second.restore()
    assert int(second.learner.replay.size.sum()) == 0
    assert "train/kl" in second._iterate()
    assert "leave them out" in second.learner.remarks(config.total_steps)[0]


def test_what_buffers_and_checkpoints_take_is_said_up_front(tmp_path):
    config = run_config(replay_size=100_000)
    run = folder.create(tmp_path, config, [])
    training = Training(run, config)
    said = re.search(r"take (\d+) MiB; checkpoints hold .* up to (\d+) MiB", *training.learner.remarks(20_000_000))
    memory, kept = map(int, said.groups())
    learner = training.learner
    assert memory == round((learner.replay.rows.nbytes + learner.context.rows.nbytes) / 2**20) == kept
    (small,) = learner.remarks(config.total_steps)
    rows = config.total_steps * learner.replay.rows.shape[2] * 4
    assert f"up to {2 * rows / 2**20:.0f} MiB" in small
    training._iterate()
    state = learner.state_dict()
    taken = sum(state[f"{part}/rows"].nbytes for part in ("replay", "context"))
    assert taken <= 2 * rows


def test_a_list_of_tasks_is_met_in_rounds(tmp_path):
    training = Training(Run(tmp_path), run_config())
    numbers = [training.task_number(i).tolist() for i in range(6)]
    for i in (0, 2, 4):
        assert sorted(numbers[i] + numbers[i + 1]) == list(range(8))
    assert numbers[0] + numbers[1] != numbers[2] + numbers[3]


@pytest.mark.parametrize("field", ["latent_size", "meta_batch", "replay_size", "num_updates"])
def test_values_out_of_range_are_refused(field):
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(CONFIG, **{field: 0})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none_is_refused():
    with pytest.raises(UserError, match="has no CUDA"):
        require_device("cuda")


@pytest.mark.parametrize("belief", ["posterior", "prototype"])
def test_blocks_of_steps_replayed_as_on_a_gpu_are_the_steps(monkeypatch, belief):
    """Three blocks before the graph is captured, two by it, and a shorter one."""
    monkeypatch.setattr("metarl.agents.pearl_blocks._BLOCK", 3)
    states = []
    for captures in (False, True):
        with on_a_gpu(captures):
            env, learner = make(num_updates=5 * 3 + 2, belief=belief)
            learner.store(trial(env, learner))
            records = learner.gradient_steps(seeding.generator(0, "update"))
            states.append(learner.state_dict() | {"records": records})
            assert learner._gradient_steps._blocks[3]._replay.replays == captures
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert states[0]["records"].isfinite().all()


def test_as_on_a_gpu_a_copy_of_the_policy_collects_while_it_learns():
    """It acts as the policy did before the steps under way, whose record is told with the next update's."""
    with on_a_gpu(captures=False):
        env, learner = make(num_updates=3)
        apart, before = learner.behaviour, learner.policy.actor[0].weight.clone()
        assert apart is not learner.policy
        assert "train/kl" not in train(env, learner, [0])
        learnt = learner.policy.actor[0].weight.clone()
        assert torch.equal(apart.actor[0].weight, before) and not torch.equal(learnt, before)
        assert train(env, learner, [1])["train/gradient_steps"] == 3.0
        assert torch.equal(apart.actor[0].weight, learnt) and learner.behaviour is apart
        learner.load_state_dict(make(num_updates=3)[1].state_dict())
        assert torch.equal(apart.actor[0].weight, before)


def test_a_step_that_is_not_finite_is_left_out_as_on_a_gpu_too():
    with on_a_gpu(captures=False):
        env, learner = make(num_updates=2)
        learner.store(trial(env, learner))
        before = learner.state_dict()
        learner.replay.rows[..., -2] = float("nan")
        assert not learner.gradient_steps(seeding.generator(0, "update")).any()
        after = learner.state_dict()
        assert learner._guard.skipped == 2
    assert all(torch.equal(value, after[name]) for name, value in before.items() if name.startswith("policy"))


@needs_cuda
def test_it_trains_on_cuda():
    env, learner = make(on="cuda")
    before = learner.policy.actor[0].weight.detach().clone()
    train(env, learner, [0, 1])
    assert not torch.equal(before, learner.policy.actor[0].weight)
