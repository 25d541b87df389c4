"""Policies that leave the house: bundles, and what runs them on a robot."""

from metarl.core.callable_package import callable_package

callable_package(__name__, "metarl.export.bundle")
