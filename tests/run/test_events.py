"""TensorBoard reads our event files as it reads its own."""

import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.run.events import EventFile


def shown(folder):
    read = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tensorboard_reads_every_scalar(tmp_path):
    file = EventFile(tmp_path, purge_step=1)
    for step in (1, 200, 2**40):
        file.write(step, {"rollout/return_first": step / 3, "größe": -0.0})
    file.write(2**41, {"rollout/return_first": math.nan, "größe": 1e300})
    file.close()
    found = shown(tmp_path)
    assert found["größe"] == [(1, 0.0), (200, 0.0), (2**40, 0.0), (2**41, math.inf)]
    assert found["rollout/return_first"][:2] == [(1, pytest.approx(1 / 3)), (200, pytest.approx(200 / 3))]
    assert math.isnan(found["rollout/return_first"][3][1])


def test_a_resumed_run_hides_what_it_goes_over_again(tmp_path):
    first = EventFile(tmp_path, purge_step=1)
    for step in (10, 20, 30):
        first.write(step, {"loss": 1.0})
    first.close()
    second = EventFile(tmp_path, purge_step=21)
    second.write(30, {"loss": 2.0})
    second.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert shown(tmp_path)["loss"] == [(10, 1.0), (20, 1.0), (30, 2.0)]
