"""metarl: meta-reinforcement learning for robots that adapt within a few episodes."""

__version__ = "0.1.0"
