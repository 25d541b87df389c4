"""Runs that the tests break, made once."""

import pytest
from tiny import META, config, stop_after

from metarl.run.sessions import train


@pytest.fixture(scope="session", params=META)
def stopped(request, tmp_path_factory):
    """A run that was stopped after two of its three iterations, and the same run never stopped."""
    place = tmp_path_factory.mktemp(request.param)
    train(config(3, request.param), place / "whole")  # in this process, so that others find the modules imported
    train(config(3, request.param), place / "run", callbacks=stop_after(2))
    return place / "run", place / "whole"
