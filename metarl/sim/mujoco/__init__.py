"""Worlds simulated by MuJoCo."""
