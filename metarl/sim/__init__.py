"""Simulation: batched physics, families of tasks, and the environment that runs trials of them."""
