"""The Python API: what README shows first, on trainings of seconds."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import metarl
from metarl.core.errors import UserError
from metarl.core.renamed import NAMES

SHORT = f"{Path(__file__).parent}/short_family.py:ShortDir"
TINY = {"num_worlds": 4, "total_steps": 3 * 80, "hidden_size": 8, "chunk_steps": 5, "validation_tasks": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return metarl.train("rl2", SHORT, output=tmp_path_factory.mktemp("api") / "run", seed=3, **TINY)


def test_a_bare_import_loads_no_torch_and_offers_every_name():
    code = "import metarl, sys; assert not {'torch', 'mujoco', 'gymnasium'} & set(sys.modules); print(*metarl.__all__)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names = shown.split()
    assert 20 <= len(names) <= 36
    for name in names:
        assert getattr(metarl, name).__name__.removeprefix("metarl.") == name
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        metarl.trian  # noqa: B018


def test_fields_of_the_run_and_of_the_learner_are_given_by_keyword(run):
    config = run.config()
    assert (config.seed, config.num_worlds, config.learner.hidden_size) == (3, 4, 8)
    assert len(run.metrics) == 3 and "--hidden-size 8" in run.provenance()["command"]
    with pytest.raises(UserError, match="unknown option 'hiden_size' \\(did you mean 'hidden_size'\\?\\)"):
        metarl.train("rl2", SHORT, hiden_size=8)
    with pytest.raises(UserError, match="num_worlds = 0"):
        metarl.train("rl2", SHORT, num_worlds=0)


def test_an_evaluation_is_a_record_of_arrays_kept_with_the_run(run):
    record = metarl.evaluate(run, split="test", num_tasks=3)
    assert record.returns.shape == (3, 2) and np.isfinite(record.returns).all()
    assert record.to_json()["returns"] == record.returns.tolist()
    assert "<pre" in record._repr_html_()
    (kept,) = metarl.Run.open(run.path).evaluations
    assert np.array_equal(kept.returns, record.returns) and kept.tasks.ids == record.tasks.ids
    own = metarl.Tasks.from_rows([{"direction": 1.0}])
    assert metarl.evaluate(run.path, tasks=own).returns.shape == (1, 2)
    looked = metarl.evaluate("point-goal", agent="random", num_tasks=2)
    assert (looked.agent, looked.train_steps) == ("random", 0)


def test_a_loaded_policy_acts_by_hand_without_a_simulator(run):
    """A session in an environment of one's own returns what the evaluation of the same world does."""
    code = f"import metarl, sys; metarl.load({str(run.path)!r}); assert 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    policy = metarl.load(run)
    env = metarl.make(SHORT, num_worlds=2)
    tasks = env.family.space.fixed("test", 2)
    session, obs = policy.session(num_worlds=2), env.begin(tasks, key=5)
    states = []
    for _ in range(env.trial_steps):
        step = env.step(session.act(obs))
        session.observe(step.reward, step.final_obs, step.terminated)
        if bool(step.ended.any()) and not bool(step.trial_start.any()):
            session.new_episode(step.ended)
        obs = step.obs
        states.append(session.state.memory.clone())
    assert not torch.equal(states[0], states[-1])
    session.new_task()
    assert not session.state.memory.any()


def test_a_callback_sees_every_iteration_and_may_stop(tmp_path):
    seen = []

    def watch(metrics):
        seen.append(metrics["rollout/return_last"])
        return len(seen) < 2

    run = metarl.train("rl2", SHORT, output=tmp_path / "run", callback=watch, **TINY)
    assert len(seen) == len(run.metrics) == 2
    further = metarl.resume(run, total_steps=5 * 80)
    assert len(further.metrics) == 5 and further.config().total_steps == 400
    with pytest.raises(UserError, match="has trained for 400 already"):
        metarl.resume(run, total_steps=80)


def test_pretrained_policies_and_families_are_known_by_name():
    assert "rl2" in metarl.learners() and "half-cheetah-dir" in metarl.families()
    policy = metarl.load("pretrained:half-cheetah-dir-rl2")
    assert policy.info.observation_size == 20 and len(policy.info.actions) == 6
    with pytest.raises(UserError, match="did you mean 'half-cheetah-dir-rl2'"):
        metarl.load("pretrained:half-cheetah-dir-rl")


def test_a_class_of_a_file_is_a_family_and_one_of_the_prompt_is_not(run):
    from metarl.envs.half_cheetah import HalfCheetahDir

    assert metarl.make(HalfCheetahDir, episode_steps=7).trial_steps == 14
    made = type("Typed", (HalfCheetahDir,), {"__module__": "builtins"})
    assert metarl.make(made).num_worlds == 1
    with pytest.raises(UserError, match=r"Typed is not defined in a file: save it in one"):
        metarl.train("rl2", made, output=run.path.parent / "typed")


def test_imports_of_version_0_1_name_the_new_place():
    for old, new in (("sim.trials", "sim.mujoco.mujoco_env"), ("tasks", "core.tasks"), ("report", "reports")):
        with pytest.raises(ModuleNotFoundError, match=f"metarl.{old} is now metarl.{new}"):
            __import__(f"metarl.{old}")
    for module, names in NAMES.items():
        for name in names:
            with pytest.raises(ImportError, match=rf"metarl\.{module}\.{name} is now metarl\."):
                exec(f"from metarl.{module} import {name}")


def test_python_m_metarl_is_the_command_line():
    shown = subprocess.run([sys.executable, "-m", "metarl", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == metarl.__version__


def test_a_package_of_the_name_of_a_function_is_called_as_the_function():
    """`metarl.export` becomes the package once that is imported, which its first call does."""
    code = "import metarl, metarl.export.runtime\ntry: metarl.export('nowhere', 'bundle')\n"
    code += "except metarl.UserError as error: print(error)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "nowhere" in printed
