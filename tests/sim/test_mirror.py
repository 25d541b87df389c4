"""Left-right symmetry: what is declared is what policies are told, and a wrong declaration is found."""

from dataclasses import replace

import pytest
import torch
from families import columns

from metarl.check import tested
from metarl.check.symmetry import symmetric
from metarl.core.errors import UserError
from metarl.core.info import PolicyInfo
from metarl.core.mirror import reflect, side_by_side, signed
from metarl.core.registry import make_family
from metarl.core.tasks import Parameter, TaskSpace, Uniform
from metarl.envs.quadruped import SYMMETRY
from metarl.envs.quadruped_tasks import QuadrupedCommand, QuadrupedCrippled
from metarl.sim.make import make_env
from metarl.sim.mirror import mirror_of, mirrored_tasks, symmetry_of


def test_a_vector_is_permuted_and_signed():
    reflection = side_by_side(signed(1, -1), ((1, 1), (0, -1)))
    assert reflection == ((0, 1), (1, -1), (3, 1), (2, -1))
    vector = torch.arange(8.0).view(2, 4)
    assert reflect(vector, reflection).tolist() == [[0.0, -1.0, 3.0, -2.0], [4.0, -5.0, 7.0, -6.0]]


def test_policies_are_told_and_files_keep_it():
    with make_env(QuadrupedCrippled(), 2, threads=1, task_visible=True) as env:
        info, mirror = env.info, env.info.mirror
        sizes = [len(one) for one in (mirror.observation, mirror.action, mirror.privileged)]
        assert sizes == [env.observation_size, 12, 13]
        assert PolicyInfo.from_json(info.to_json()) == info
        assert torch.equal(
            reflect(reflect(obs := torch.rand(5, sizes[0]), mirror.observation), mirror.observation), obs
        )


def test_files_from_before_have_none_and_nonsense_is_refused():
    with make_env(QuadrupedCommand(), 1, threads=1) as env:
        content = env.info.to_json()
    assert PolicyInfo.from_json({name: value for name, value in content.items() if name != "mirror"}).mirror is None
    right = content["mirror"]
    for wrong in ({"action": [[0, 1]]}, right | {"action": [[0, 1]] * 12}, right | {"action": [[0, 2]]}):
        with pytest.raises(UserError):
            PolicyInfo.from_json(content | {"mirror": wrong})


def test_the_mirror_image_of_a_task():
    tasks = columns(motor=[0.0, 5.0, 7.0, -1.0], strength=[0.1, 0.2, 0.3, 1.0])
    image = mirrored_tasks(QuadrupedCrippled(), tasks)
    assert image["motor"].tolist() == [3.0, 2.0, 10.0, -1.0]
    assert torch.equal(image["strength"], tasks["strength"])
    assert mirrored_tasks(QuadrupedCommand(), columns(velocity=[0.5], turn=[0.2]))["turn"].tolist() == [-0.2]


class Sideways(QuadrupedCommand):
    """Says nothing of whether its own parameter is alike on left and right."""

    space = TaskSpace({**QuadrupedCommand.space.parameters, "lean": Parameter(Uniform(0.0, 1.0), "1")})


class Named(QuadrupedCommand):
    """Changes nothing that a symmetry is of."""

    episode_steps = 50


def test_who_changes_what_a_symmetry_is_of_says_it_anew():
    assert symmetry_of(Sideways()) is None
    assert symmetry_of(Named()) is QuadrupedCommand.mirror
    for name in ("quadruped-command", "quadruped-body+joint_friction"):
        assert symmetry_of(make_family(name)) is not None, "whatever can be added is alike on both sides"
    assert symmetry_of(make_family(f"{__file__}:Sideways+joint_friction")) is None
    assert symmetry_of(make_family("quadruped-command", "[redrawn]\nparameters = ['turn']\nevery = 1.0\n")) is None
    assert symmetry_of(make_family("quadruped-command", ranges=["turn=0.2:0.5"])) is None
    assert symmetry_of(make_family("quadruped-command", ranges=["velocity=0.2:0.5"])) is not None


class WrongPart(QuadrupedCommand):
    mirror = replace(QuadrupedCommand.mirror, parts={**SYMMETRY.parts, "gyro": signed(-1, 1, 1)})


class WrongAction(QuadrupedCommand):
    mirror = replace(QuadrupedCommand.mirror, action=signed(*[1] * 12))


class WrongParameter(QuadrupedCommand):
    mirror = SYMMETRY


@pytest.mark.parametrize(
    ("family", "problem"), [(WrongPart, "gyro"), (WrongAction, "differs"), (WrongParameter, "reward term")]
)
def test_a_wrong_declaration_is_found(family, problem):
    with pytest.raises(UserError, match=problem):
        symmetric(tested.Tested(family()))


def test_a_reflection_of_the_wrong_size_is_refused():
    class TooShort(QuadrupedCommand):
        mirror = replace(SYMMETRY, parts={**SYMMETRY.parts, "gravity": signed(1, -1)})

    with pytest.raises(UserError, match="gravity"):
        mirror_of(TooShort(), (), False)
