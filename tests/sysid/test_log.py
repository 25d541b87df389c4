"""Logs as files, and what is refused of them: both sides named, in one sentence."""

import numpy as np
import pytest

from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.sysid.cutting import Options
from metarl.sysid.identify import identify
from metarl.sysid.log import Log, read_log
from metarl.sysid.simulated import simulated_log

FAMILY = "quadruped-body"


@pytest.fixture(scope="module")
def log():
    return simulated_log(make_family(FAMILY), {"payload": 1.7}, seconds=2.0, seed=3)


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_a_log_is_read_back(log, tmp_path, ending):
    path = tmp_path / f"log.{ending}"
    log.write(path)
    again = read_log(path)
    assert again.columns.keys() == log.columns.keys()
    for name, values in log.columns.items():
        np.testing.assert_allclose(again.columns[name], values, rtol=1e-7, atol=1e-8)


def test_an_mcap_file_is_read(log, tmp_path):
    writing = pytest.importorskip("mcap.writer")
    import json

    path = tmp_path / "log.mcap"
    with path.open("wb") as file:
        writer = writing.Writer(file)
        writer.start()
        schema = writer.register_schema("row", "jsonschema", b"{}")
        channel = writer.register_channel("/robot", "json", schema)
        names = list(log.columns)
        for i in range(5):
            row = {name: float(log.columns[name][i]) for name in names if np.isfinite(log.columns[name][i])}
            writer.add_message(channel, log_time=i, publish_time=i, data=json.dumps(row).encode())
        writer.finish()
    again = read_log(path)
    np.testing.assert_allclose(again.columns["gyro.x"], log.columns["gyro.x"][:5])


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "log.npz"
    np.savez(path, time=np.array([object()]))
    with pytest.raises(UserError, match="no NPZ file of numbers"):
        read_log(path)


def test_gaps_and_restarts_cut_a_log():
    time = np.array([0.0, 0.02, 0.04, 0.09, 0.11, 0.13, 0.15])
    start = np.array([np.nan, np.nan, np.nan, np.nan, np.nan, 1.0, np.nan])
    log = Log({"time": time, "start": start})
    pieces = log.pieces(0.02, np.zeros((7, 1)))
    assert [(one.start, one.stop) for one in pieces] == [(0, 3), (3, 5), (5, 7)]


def changed(log, **columns):
    return Log({key: value for key, value in {**log.columns, **columns}.items() if value is not None})


def refused(log, **columns):
    with pytest.raises(UserError) as caught:
        identify(make_family(FAMILY), FAMILY, changed(log, **columns), Options(threads=1), lambda what: None)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_not_of_this_robot_is_refused(log):
    c = log.columns
    assert "lacks the commands target.FL_hip" in refused(log, **{"target.FL_hip": None})
    assert "'gyro.w', which quadruped-body does not observe" in refused(log, **{"gyro.w": c["gyro.x"]})
    assert "no column 'time'" in refused(log, time=None)
    assert "must increase" in refused(log, time=np.flip(c["time"]))
    assert "no whole multiple of the time step 4 ms" in refused(log, time=c["time"] * 0.5)
    no_targets = {f"target.{name.removeprefix('target.')}": None for name in c if name.startswith("target.")}
    assert "has no commands" in refused(log, **no_targets)
    assert "unbroken pieces" in refused(log, **{"target.FL_hip": np.where(c["time"] % 0.5 < 0.03, np.nan, c["gyro.x"])})


def test_wrong_units_and_orders_are_suspected(log):
    c = log.columns
    degrees = {name: np.rad2deg(c[name]) for name in c if name.startswith("joint_position.")}
    assert "is it in degrees" in refused(log, **degrees)
    speeds = {name: np.rad2deg(c[name]) for name in c if name.startswith("joint_velocity.")}
    assert "times the rate at which" in refused(log, **speeds)
    heavy = {name: 9.81 * c[name] for name in c if name.startswith("gravity.")}
    assert "'gravity' is typically 9.8" in refused(log, **heavy)
    swapped = {f"target.FL_{a}": c[f"target.FL_{b}"] for a, b in (("abduction", "hip"), ("hip", "abduction"))}
    assert "in another order?" in refused(log, **swapped)
