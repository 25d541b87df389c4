"""`metarl check robot.xml`: a bare MJCF file, without a family."""

import json
import os
from pathlib import Path

import pytest

from metarl.check import mjcf_file
from metarl.check.check import Finding
from metarl.check.mjcf_file import MJCF_CHECKS, check_mjcf
from metarl.cli.main import main
from metarl.core.errors import UserError

ARM = Path(__file__).parents[2] / "envs" / "assets" / "arm.xml"
ROBOT = """<mujoco><option timestep="0.02"/><worldbody><light pos="0 0 3"/><body><joint name="j"/><geom size="0.1"/>
</body></worldbody><actuator><motor name="strong" joint="j" gear="1e12" ctrlrange="-1 1"/>
<motor name="free" joint="j" gear="0"/></actuator></mujoco>"""


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """Of MuJoCo's logs, where the user stands and where the model lies."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("MUJOCO_LOG.TXT"))


def test_a_sound_robot_passes(capsys, tmp_path):
    assert main(["check", str(ARM), "--json", "findings.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok      it is safe to read (1 file)"
    assert lines[1].startswith(
        "ok      it compiles within the limits of time and memory (11 bodies, 7 joints, 6 actuators, 120 kg, "
    )
    assert [line[8:] for line in lines[2:5]] == list(MJCF_CHECKS[2:5])
    assert lines[5].startswith(
        ("ok      a picture can be drawn (by a camera", "--      a picture can be drawn (not checked")
    )
    assert lines[6].startswith(f"{ARM}: ")
    findings = json.loads(Path("findings.json").read_text())
    assert [finding["check"] for finding in findings] == list(MJCF_CHECKS)


def test_every_fault_is_a_line_of_its_own(capsys, monkeypatch):
    monkeypatch.setenv("METARL_GL", "off")
    Path("robot.XML").write_text(ROBOT)
    assert main(["check", "robot.XML"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == (
        "FAILED  its actuators have ranges: no ctrlrange, so that actions in [-1, 1] have no range to map onto: free"
    )
    assert lines[3].startswith("ok      it stands 1 s of physics without actions")
    assert lines[4].startswith("FAILED  it stands 1 s of physics under random actions: the physics diverged after 0")
    assert lines[4].endswith("also with a tenth of the timestep: look for gears, gains or masses out of proportion")
    assert lines[5].startswith("--      a picture can be drawn (not checked: MUJOCO_GL=off")
    assert lines[6] == "robot.XML: 3 of 6 checks passed, 2 failed, 1 not checked"


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("<mujoco>\n<include file='../secret.xml'/></mujoco>", 0, "robot.mjcf, line 2: '../secret.xml' lies outside"),
        ("<mujoco>\n<worldbody>\n<geom/></worldbody></mujoco>", 1, "robot.mjcf, line 3: size 0 must be positive"),
        ("<mujoco/>", 2, "the model has no actuators"),
    ],
)
def test_a_fault_stops_what_needs_its_absence(text, place, problem, monkeypatch):
    monkeypatch.setattr(mjcf_file, "_picture", lambda *_: Finding(MJCF_CHECKS[-1], None))
    Path("robot.mjcf").write_text(text)
    findings = check_mjcf(Path("robot.mjcf"))
    assert [finding.check for finding in findings] == list(MJCF_CHECKS)
    assert findings[place].problem.startswith(problem)
    assert not any(finding.problem for finding in findings[:place])
    if place < 2:
        assert {finding.note for finding in findings[place + 1 :]} == {
            f"not checked: it needs that {MJCF_CHECKS[place]}"
        }


def test_a_model_nothing_is_seen_of_has_no_picture(monkeypatch):
    Path("robot.xml").write_text("<mujoco><visual><headlight active='0'/></visual></mujoco>")
    finding = check_mjcf(Path("robot.xml"))[-1]
    if finding.checked:
        assert "it is of one colour, (0, 0, 0): the camera sees nothing" in finding.problem
    monkeypatch.setattr(mjcf_file, "_PICTURE_SECONDS", 0.01)
    finding = check_mjcf(Path("robot.xml"))[-1]
    assert not finding.checked or finding.problem == "it takes longer than 0.01 s"


def test_files_of_a_wider_folder_need_leave(capsys, monkeypatch):
    monkeypatch.setenv("METARL_GL", "off")
    os.mkdir("arm")
    Path("common.xml").write_text("<a/>")
    Path("arm/robot.xml").write_text(ROBOT.replace("<option", "<include file='../common.xml'/><option"))
    assert main(["check", "arm/robot.xml"]) == 2
    assert "FAILED  it is safe to read: arm/robot.xml, line 1: '../common.xml' lies outside" in capsys.readouterr().out
    assert main(["check", "arm/robot.xml", "--folder", "."]) == 2
    assert "ok      it is safe to read (2 files)" in capsys.readouterr().out


def test_a_smaller_timestep_is_advised_where_it_helps(monkeypatch):
    monkeypatch.setattr(mjcf_file, "_picture", lambda *_: Finding(MJCF_CHECKS[-1], None))
    Path("robot.xml").write_text(
        """<mujoco><option timestep="0.02"/><worldbody><body><joint name="j"/><geom size="0.1"/></body></worldbody>
        <actuator><position joint="j" kp="200" kv="10" ctrlrange="-1 1"/></actuator></mujoco>"""
    )
    assert check_mjcf(Path("robot.xml"))[4].problem.endswith("; with a timestep of 0.002 s it does not")


def test_the_limit_of_memory_can_be_lowered_and_raised(capsys, monkeypatch):
    monkeypatch.setenv("METARL_GL", "off")
    Path("robot.xml").write_text(ROBOT)
    assert main(["check", "robot.xml", "--memory", "0.02"]) == 2
    assert "robot.xml: it needs more than 0.02 GiB of memory: --memory allows more" in capsys.readouterr().out


def test_a_urdf_is_no_family(capsys):
    Path("robot.urdf").write_text("<robot name='r'><link name='a'/></robot>")
    assert main(["check", "robot.urdf"]) == 2
    assert "robot.urdf, line 1: it is a URDF file, which has no actuators: convert it" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_one_sentence(capsys):
    assert main(["check", "nowhere.xml"]) == 2
    assert capsys.readouterr().err == "metarl: there is no file nowhere.xml\n"
    with pytest.raises(UserError, match="there is no file"):
        check_mjcf(Path("nowhere.mjcf"))
