"""Worlds of other simulators: Gymnasium environments in processes of their own."""
