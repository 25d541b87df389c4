"""Robots of the optional package mujoco-menagerie, from a folder that stands for its checkout."""

import sys

import pytest
from families import RAIL

from metarl.core.errors import UserError
from metarl.sim.mujoco.menagerie import menagerie
from metarl.sim.mujoco.mujoco_env import compile_spec


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with one tiny robot, under the name of a real one."""
    folder = tmp_path / "unitree_go1"
    folder.mkdir()
    (folder / "go1.xml").write_text(RAIL.format("-1 1"))
    scene = '<mujoco><include file="go1.xml"/><worldbody><geom name="floor" type="plane" size="1 1 1"/></worldbody>'
    (folder / "scene.xml").write_text(f"{scene}</mujoco>")
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    return tmp_path


def test_a_robot_comes_in_its_scene_or_alone(root):
    scene, alone = compile_spec(menagerie("unitree_go1")), compile_spec(menagerie("unitree_go1", "go1"))
    assert (scene.nu, scene.ngeom) == (1, 2)
    assert (alone.nu, alone.ngeom) == (1, 1)


def test_a_wrong_name_is_answered_with_the_nearest(root):
    with pytest.raises(UserError, match=r"unknown robot of mujoco-menagerie 'unitre_go1' \(did you mean 'unitree_go1'"):
        menagerie("unitre_go1")
    with pytest.raises(UserError, match="'unitree_go1' has no entry point 'go2'; available: go1, scene"):
        menagerie("unitree_go1", "go2")


def test_what_the_folder_lacks_is_said(root):
    with pytest.raises(UserError, match="'unitree_go2' not found under MENAGERIE_ROOT"):
        menagerie("unitree_go2")
    (root / "unitree_go1" / "scene.xml").unlink()
    with pytest.raises(UserError, match=r"the robot 'unitree_go1' of mujoco-menagerie: .*scene\.xml"):
        menagerie("unitree_go1")
    (root / "unitree_go1" / "go1.xml").write_text("<mujoco>")
    with pytest.raises(UserError, match=r"the robot 'unitree_go1' of mujoco-menagerie: .*XML") as caught:
        menagerie("unitree_go1", "go1")
    assert "\n" not in str(caught.value)


def test_without_the_package_its_name_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_menagerie", None)
    with pytest.raises(UserError, match=r"needs the package mujoco-menagerie: pip install mujoco-menagerie$"):
        menagerie("unitree_go1")
