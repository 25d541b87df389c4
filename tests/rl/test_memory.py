"""Acting from packed weights is what the network does, whatever changes them."""

import copy
from dataclasses import replace

import pytest
import torch
from robots import info_of

from metarl.agents.configs import RL2Config
from metarl.agents.rl2_policy import RL2Policy, policy_inputs
from metarl.core.info import Part
from metarl.core.types import Transition

N, T = 5, 12


def play(policy, obs, reward):
    """Mean actions by the policy, step by step, and by its network on the whole sequence."""
    state, actions, inputs = policy.initial_state(N), [], []
    for t in range(T):
        seen = policy.obs_norm(obs[t])
        inputs.append(policy_inputs(seen, state.last_action, state.last_reward, state.episode_start))
        action, state = policy.act(obs[t], state, torch.zeros(N, 2), True)
        fallen = torch.zeros(N, dtype=torch.bool)
        state = policy.observe(state, Transition(obs[t], action, reward[t], obs[t], fallen))
        actions.append(action)
    empty = torch.zeros(N, policy.network.state_size)
    with torch.no_grad():
        expected, _, _ = policy.network(torch.stack(inputs), policy.obs_norm(obs), empty)
        after = policy.network.memory.sequence(torch.stack(inputs), empty)[1]
    return torch.stack(actions), expected, torch.cat((state.memory, state.cell), dim=1), after


@pytest.mark.parametrize(
    "words", [{"cell": "gru"}, {"cell": "lstm"}, {"policy_head": "hyper"}, {"policy_head": "belief"}], ids=str
)
def test_actions_and_memories_are_the_network_s(words):
    torch.manual_seed(0)
    info = replace(info_of(3, 2), privileged=(Part("speed", 1, "m/s"),))
    policy = RL2Policy(RL2Config(hidden_size=32, privileged_critic=False, **words), info)
    assert policy.network.believing == (words.get("policy_head") == "belief")
    obs, reward = torch.randn(T, N, 3), torch.randn(T, N)
    policy.obs_norm.update(3.0 * obs + 1.0)
    policy.reward_norm.update(5.0 * reward)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    actions, expected, memory, after = play(policy, obs, reward)
    torch.testing.assert_close(actions, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(memory, after, rtol=0, atol=1e-6)


@pytest.mark.parametrize("change", ["step", "load", "norm", "copy", "dtype"])
def test_a_change_of_the_weights_is_noticed(change):
    torch.manual_seed(0)
    policy = RL2Policy(RL2Config(hidden_size=8), info_of(3, 2))
    obs, reward = torch.randn(T, N, 3), torch.randn(T, N)
    before = play(policy, obs, reward)[0]
    if change == "step":
        optimizer = torch.optim.SGD(policy.parameters(), 1.0)
        policy.network.actor(torch.ones(1, 11)).sum().backward()
        optimizer.step()
    elif change == "load":
        policy.load_state_dict(RL2Policy(RL2Config(hidden_size=8), info_of(3, 2)).state_dict())
    elif change == "norm":
        policy.obs_norm.update(3.0 * obs + 1.0)
    elif change == "copy":
        policy = copy.deepcopy(policy)
        torch.nn.init.ones_(policy.network.actor[2].bias)
    else:
        policy = policy.double().float()
        torch.nn.init.ones_(policy.network.actor[2].bias)
    actions, expected, _, _ = play(policy, obs, reward)
    assert not torch.equal(actions, before)
    torch.testing.assert_close(actions, expected, rtol=0, atol=1e-6)
