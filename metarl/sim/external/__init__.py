"""Worlds of other simulators: Gymnasium environments in processes of their own."""

from metarl.core.renamed import old_names

__getattr__ = old_names(__name__)
