"""Policies that leave the house: bundles, and what runs them on a robot."""
