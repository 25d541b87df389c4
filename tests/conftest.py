"""Shared by all tests: one torch thread, and property tests that repeat exactly and ignore the load of the machine."""

import functools
import os
import tempfile
import typing

import pytest
import torch
import type_checks
from hypothesis import settings

os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="metarl-state-")  # of these tests, and not of whoever runs them
torch.set_num_threads(1)
# Types are checked at every call, and Python 3.11 gathers a protocol's members at every check; 3.12 keeps them.
if hasattr(typing, "_get_protocol_attrs"):
    typing._get_protocol_attrs = functools.cache(typing._get_protocol_attrs)
settings.register_profile("metarl", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("metarl")


@pytest.fixture(autouse=True)
def _types():
    type_checks.begin_test()


@pytest.fixture(autouse=True)
def _mujoco_log(tmp_path, monkeypatch):
    """MuJoCo appends its warnings to a file in the working directory: keep it out of the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def figure(record_property):
    """Takes a sentence of what a test measured, which is printed at the end: see docs/reliability.md."""
    return lambda words: record_property("figure", words)


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.getreports("passed")
    figures = [words for report in reports for name, words in report.user_properties if name == "figure"]
    if figures:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(figures))
