"""What a policy is told of a made-up robot."""

from metarl.core.info import Part, PolicyInfo


def info_of(obs_size, action_size, episode_steps=4, episodes=2):
    """A robot whose observation is one part."""
    actions = tuple(f"motor {i}" for i in range(action_size))
    return PolicyInfo((Part("observation", obs_size, "1"),), actions, 0.05, episode_steps, episodes)
