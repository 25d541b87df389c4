"""Stages from steps: the trial of world 0 has episodes of 3, 2 and 3 steps, that of world 1 one of 5 and one of 3."""

import numpy as np
import torch

from metarl.rl.stages import episode_index, make_stage

ENDED = torch.zeros(8, 2, dtype=torch.bool)
ENDED[[2, 4, 7], 0] = True
ENDED[[4, 7], 1] = True
GAMMA = 0.9


def data(steps=8, worlds=2):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(steps, worlds, *shape, generator=generator, dtype=torch.float64)

    return draw(3), draw(2), draw(), draw()


def stage_of(valid=None, lam=1.0, worlds=slice(None)):
    obs, action, log_prob, reward = data()
    valid = torch.ones_like(ENDED) if valid is None else valid
    columns = [x[:, worlds] for x in (obs, action, log_prob, reward, ENDED, valid)]
    return make_stage(*columns, GAMMA, lam)


def test_steps_are_numbered_by_episode_and_age():
    episode, age = episode_index(ENDED)
    assert episode.T.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 1, 1, 1]]
    assert age.T.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2], [0, 1, 2, 3, 4, 0, 1, 2]]


def advantages(world, steps, lam):
    """By hand: returns to go, least squares on the published features, and the exponentially weighted sum."""
    obs, _, _, reward = (x.numpy() for x in data())
    ended = ENDED.numpy()
    _, age = episode_index(ENDED)
    x = np.clip(obs[steps, world], -10, 10)
    tau = age.numpy()[steps, world][:, None] / 100
    inputs = np.concatenate((x, x**2, tau, tau**2, tau**3, np.ones_like(tau)), axis=1)
    returns, advantage = np.zeros(len(steps)), np.zeros(len(steps))
    total = 0.0
    for i in reversed(range(len(steps))):
        total = reward[steps[i], world] + GAMMA * total * (not ended[steps[i], world])
        returns[i] = total
    ridge = np.sqrt(1e-5) * np.eye(inputs.shape[1])
    c = np.linalg.lstsq(np.concatenate((inputs, ridge)), np.concatenate((returns, np.zeros(inputs.shape[1]))))[0]
    value, trace = inputs @ c, 0.0
    for i in reversed(range(len(steps))):
        alive = not ended[steps[i], world]
        following = value[i + 1] if alive and i + 1 < len(steps) else 0.0
        delta = reward[steps[i], world] + GAMMA * following - value[i]
        trace = delta + GAMMA * lam * trace * alive
        advantage[i] = trace
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def test_advantages_are_those_computed_by_hand():
    for lam in (1.0, 0.7):
        stage = stage_of(lam=lam)
        for world in (0, 1):
            expected = advantages(world, np.arange(8), lam)
            np.testing.assert_allclose(stage.advantage[world].numpy(), expected, rtol=1e-6, atol=1e-9)


def test_a_stretch_of_a_trial_is_a_stage_of_its_own():
    """Only the first two episodes of world 0 and the last of world 1."""
    valid = torch.zeros_like(ENDED)
    valid[:5, 0] = True
    valid[5:, 1] = True
    stage = stage_of(valid)
    assert stage.weight.tolist() == [[0.2] * 5 + [0.0] * 3, [0.0] * 5 + [1 / 3] * 3]
    np.testing.assert_allclose(stage.advantage[0, :5], advantages(0, np.arange(5), 1.0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(stage.advantage[1, 5:], advantages(1, np.arange(5, 8), 1.0), rtol=1e-6, atol=1e-9)
    assert bool((stage.advantage[stage.weight == 0] == 0).all())


def test_a_tasks_stage_does_not_depend_on_the_others():
    """Trap: the baseline is refitted, and advantages normalised, task by task."""
    together = stage_of()
    for world in (0, 1):
        alone = stage_of(worlds=slice(world, world + 1))
        for one, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_of_them[world], rtol=1e-10, atol=1e-12)
    mean = (together.weight * together.advantage).sum(dim=1)
    torch.testing.assert_close(mean, torch.zeros_like(mean))
    spread = (together.weight * together.advantage**2).sum(dim=1)
    torch.testing.assert_close(spread, torch.ones_like(mean), rtol=1e-5, atol=0)  # ten features fit eight steps
