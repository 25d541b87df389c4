"""Families with a simulator of their own: their trials, and what is said when an environment or its process fails."""

import ast
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from carts import Cart
from external_family import CartGoal, PendulumMass, family
from families import columns
from gymnasium.vector import AutoresetMode
from waiting import gone

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.tasks import Parameter, TaskSpace, Uniform
from metarl.sim.adapters.gymnasium import TaskEnv, TaskVectorEnv
from metarl.sim.adapters.stable_baselines3 import EpisodeVecEnv
from metarl.sim.env import RewardError
from metarl.sim.external import worker
from metarl.sim.external.external_env import ExternalEnv, ExternalFamily
from metarl.sim.make import make_env

ROOT = Path(__file__).parents[2]
GOALS = columns(goal=[-0.25, 0.25, -0.5])  # the second one is where failing carts fail
STILL = torch.full((3, 1), -0.25)  # [-3, 5] m/s²: no acceleration
RIGHT = torch.tensor([[1.0], [-0.25], [-0.25]])  # 5 m/s²: past 0.9 m at its sixth step


def begin(family, processes=2, key=0, tasks=GOALS, episodes=2, **words):
    env = ExternalEnv(family, len(tasks), episodes_per_trial=episodes, processes=processes, **words)
    return env, env.begin(tasks, key)


def is_running(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# ---------------------------------------------------------------------------------------------------------- trials


def test_worlds_are_their_environments_stepped_by_hand():
    """Seeds by key, world and episode, actions mapped onto [-3, 5] and clipped, over two episodes."""
    env, obs = begin(CartGoal(), key=7)
    assert (env.observation_size, env.action_size, env.trial_steps) == (2, 1, 12)
    actions = 3.0 * torch.rand(12, 3, 1, generator=seeding.generator(0, "test")) - 1.5
    seeds = [
        seeding.WorldRandom(7, torch.arange(3), torch.full((3,), episode))
        .uniform(0.0, 2.0**31, 1)[:, 0]
        .long()
        .tolist()
        for episode in range(2)
    ]
    assert len({seed for row in seeds for seed in row}) == 6
    with env:
        steps = [env.step(action) for action in actions]
    for world, task in enumerate(GOALS):
        cart, t = Cart(), 0
        for episode in range(2):
            first, _ = cart.reset(seed=seeds[episode][world], options={"task": task})
            shown = obs[world] if t == 0 else steps[t - 1].obs[world]
            assert torch.equal(shown, torch.from_numpy(first).float())
            for _ in range(6):
                control = np.float32(1.0 + 4.0 * actions[t, world].double().clamp(-1, 1).numpy())
                seen, reward, *_ = cart.step(control)
                assert torch.equal(steps[t].final_obs[world], torch.from_numpy(seen).float())
                assert steps[t].reward[world] == np.float32(reward)
                t += 1
    assert torch.stack([step.truncated for step in steps]).long().sum(dim=0).tolist() == [2, 2, 2]


def test_results_do_not_depend_on_the_number_of_processes():
    actions = torch.rand(12, 3, 1, generator=seeding.generator(0, "test")) * 2 - 1
    seen = []
    for processes in (1, 2, 3):
        env, obs = begin(CartGoal(), processes)
        with env:
            seen.append(torch.stack([obs, *(env.step(action).obs for action in actions)]))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_a_world_draws_from_its_stream_and_its_trial():
    env, first = begin(CartGoal(), 1)
    with env:
        assert torch.equal(env.begin(GOALS, 0), first)
        assert not (env.begin(GOALS, 1)[:, 0] == first[:, 0]).any()
        assert torch.equal(env.begin(GOALS, 0, torch.tensor([2, 0, 1])), first[[2, 0, 1]])


def test_an_early_end_restarts_the_world_on_its_task_in_the_same_step():
    env, _ = begin(CartGoal(), episodes=3)
    with env:
        steps = [env.step(RIGHT) for _ in range(18)]
    first = steps[5]
    assert (first.terminated.tolist(), first.truncated.tolist()) == ([True, False, False], [False, True, True])
    assert first.final_obs[0, 0] > 0.9
    assert abs(first.obs[0, 0]) <= 0.1
    assert first.episode_start.all()
    assert not first.trial_start.any()
    assert steps[17].trial_start.all()
    assert env.tasks.rows() == GOALS.rows()


def test_a_time_limit_of_the_environments_own_truncates():
    env, _ = begin(family("carts.py:Limited"), episodes=1)
    with env:
        steps = [env.step(STILL) for _ in range(6)]
    assert [int(step.truncated.sum()) for step in steps] == [0, 0, 0, 3, 0, 3]
    assert steps[3].obs[0, 0] != steps[3].final_obs[0, 0]


def test_shapes_are_flattened_and_terms_are_the_environments():
    env, obs = begin(family("carts.py:Square"))
    assert (env.observation_size, env.action_size) == (4, 4)
    assert obs[:, 1:].tolist() == [[1.0, 2.0, 3.0]] * 3
    with env:
        step = env.step(torch.tensor([[0.0, 0.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -5.0, 5.0]]))
    assert {name: term.tolist() for name, term in step.reward_terms.items()} == {
        "first": [2.0, 0.0, -2.0],
        "second": [10.0, 20.0, 30.0],
    }
    assert step.reward.tolist() == [12.0, 20.0, 28.0]


def test_an_observation_that_is_not_finite_is_a_divergence():
    env, _ = begin(family("carts.py:Lost"))
    with env:
        steps = [env.step(STILL) for _ in range(4)]
    assert steps[2].diverged.tolist() == steps[2].terminated.tolist() == [False, True, False]
    assert steps[2].final_obs[1].tolist() == [0.0, 0.0]
    assert (steps[2].reward[1], steps[2].reward_terms["reward"][1]) == (0.0, 0.0)
    assert torch.isfinite(steps[3].obs).all(), "the next episode is sound"


def test_other_numbers_that_are_not_finite_are_one_sentence():
    with pytest.raises(UserError, match=r"^element 0 of the first observation is inf for the task \{'goal': -0.25\}$"):
        begin(family("carts.py:LostAtOnce"))
    env, _ = begin(family("carts.py:Unpaid"))
    with env, pytest.raises(RewardError, match=r"^reward term 'reward' is nan for the task \{'goal': -0.25\}$"):
        for _ in range(3):
            env.step(STILL)
        env.check()


def test_gymnasiums_pendulum_through_a_wrapper_and_by_its_id():
    """Gravity turns both alike; the motor turns a heavier rod less."""
    plain = type("Plain", (PendulumMass,), {"environment": "Pendulum-v1"})()
    last = []
    for pendulum in (PendulumMass(), plain):
        env, _ = begin(pendulum, 1, tasks=columns(mass=[0.5, 1.0]), episodes=1)
        streams = torch.zeros(2, dtype=torch.long)
        with env:
            first = env.begin(columns(mass=[0.5, 1.0]), 0, streams)
            assert torch.equal(first[0], first[1])
            last.append([env.step(torch.ones(2, 1)) for _ in range(10)][-1])
    assert not torch.equal(last[0].final_obs[0], last[0].final_obs[1])
    assert torch.equal(last[1].final_obs[0], last[1].final_obs[1]), "by its id alone, no one poses a task"
    assert torch.equal(last[0].final_obs[1], last[1].final_obs[1])
    assert last[0].truncated.all()


def test_our_own_ids_understand_the_same_words():
    class Point(ExternalFamily):
        space = TaskSpace({"goal": Parameter(Uniform(-0.5, 0.5, 2), unit="m")})
        control_step, episode_steps = 0.1, 20
        environment = "metarl.gym:metarl/PointGoal-v0"

    env, obs = begin(Point(), 1, tasks=columns(goal=[[0.1, 0.5], [0.5, -0.5]]))
    with env:
        step = env.step(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert obs.shape == (2, env.observation_size)
    assert step.reward[0] != step.reward[1]


# ------------------------------------------------------------------------------------------------ other libraries


def test_they_are_gymnasium_environments_with_tasks_and_splits_too():
    single, envs = TaskEnv(CartGoal(), render_mode="rgb_array"), TaskVectorEnv(CartGoal(), 2, split="ood")
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert single.reset(seed=0, options={"task": {"goal": 0.5}})[1] == {"task": {"goal": 0.5}}
    _, reward, *_, info = single.step(np.zeros(1))
    assert info["reward_terms"] == {"reward": pytest.approx(reward)}
    assert single.render().shape == (320, 480, 3)
    assert (envs.reset(seed=0)[1]["task"]["goal"] >= 0.6).all()
    assert np.isinf(envs.observation_space.high).all()
    single.close()
    envs.close()


def test_they_are_sb3_vec_envs_too():
    trials = make_env(CartGoal(), 2, episodes_per_trial=1, threads=1)
    envs = EpisodeVecEnv(trials, lambda rng: CartGoal.space.sample("train", 2, rng))
    envs.reset()
    for _ in range(6):
        _, _, ended, infos = envs.step(np.zeros((2, 1)))
    assert ended.all() and infos[0]["TimeLimit.truncated"]
    envs.close()
    with pytest.raises(UserError, match="its processes have ended"):
        envs.reset()


# ---------------------------------------------------------------------------------------------------------- pictures


def test_pictures_are_the_environments_brought_to_size_with_bars():
    env, _ = begin(CartGoal(), pictures=True)
    with env:
        pictures = env.cameras([0, 2], (96, 64)).draw()
    assert [picture.shape for picture in pictures] == [(64, 96, 3)] * 2
    assert pictures[0][32, 2].tolist() == [200, 200, 200]
    assert pictures[0][2, 48].tolist() == [32, 32, 32]
    assert not np.array_equal(*pictures), "the carts stand in different places"


def test_no_picture_is_one_sentence():
    env, _ = begin(family("carts.py:Shy"), pictures=True)
    with env, pytest.raises(UserError, match=r"draws no picture: render\(\) in the mode 'rgb_array' returns None") as e:
        env.cameras([0], (96, 64)).draw()
    assert "\n" not in str(e.value)


# ------------------------------------------------------------------------------------------------ a Python of its own


def test_workers_run_in_the_interpreter_beside_the_familys_file(tmp_path):
    """A virtual environment that borrows NumPy and Gymnasium; the worker itself brings none of our packages."""
    venv.create(tmp_path / "suite", with_pip=False, symlinks=True)
    (site,) = (tmp_path / "suite").glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    (tmp_path / "carts.py").write_text((ROOT / "tests" / "carts.py").read_text())
    (tmp_path / "own.py").write_text(
        "import external_family\nclass Own(external_family.CartGoal):\n"
        "    environment, python = 'carts:Elsewhere', 'suite/bin/python'\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        from own import Own
    finally:
        sys.path.remove(str(tmp_path))
    env, obs = begin(Own())
    with env:
        assert obs.tolist() == [[1.0, 0.0]] * 3
        assert env.description["python"] == sys.version.split()[0]
    env, obs = begin(family("carts.py:Elsewhere"))
    with env:
        assert obs.tolist() == [[0.0, 0.0]] * 3
    (site / "borrowed.pth").unlink()
    with pytest.raises(UserError, match="exit code 1: NumPy and Gymnasium must be installed there") as error:
        begin(Own())
    assert f"in {tmp_path}/suite/bin/python" in str(error.value)


def test_the_worker_knows_nothing_but_the_standard_library_numpy_and_gymnasium():
    imported = set()
    for node in ast.walk(ast.parse(Path(worker.__file__).read_text(), feature_version=(3, 10))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy", "gymnasium"}


# -------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("environment", "what", "trace"),
    [
        ("Raising", "raised ValueError: the bearing is stuck", ["self.fail()\n", 'in fail\n    raise ValueError("the']),
        ("Killed", "lost its process to SIGKILL", []),
        ("Crashing", "lost its process to SIGSEGV", ["Fatal Python error: Segmentation fault", "carts.py", "in fail"]),
        ("Exiting", "ended its process with exit code 3", []),
        ("Hanging", "did not answer within 5 s", []),
    ],
)
def test_a_failure_names_environment_task_seed_and_step_and_ends_all_processes(environment, what, trace):
    env, _ = begin(family(f"carts.py:{environment}"), 3)
    pids = [process._process.pid for process in env._workers._processes]
    assert all(map(is_running, pids))
    env.step(STILL)
    env.step(STILL)
    if environment == "Hanging":  # the others are given as long as they need
        env._workers._processes[1].wait_for(5.0)
    with pytest.raises(UserError) as error:
        env.step(STILL)
    first, *rest = str(error.value).split("\n", 1)
    seed = int(seeding.WorldRandom(0, torch.tensor([1]), torch.tensor([0])).uniform(0.0, 2.0**31, 1))
    place = f"{ROOT}/tests/carts.py:{environment}"
    assert first == f"{place} {what} (world 1, task {{'goal': 0.25}}, seed {seed}, step 3 of episode 1)"
    assert all(words in rest[0] for words in trace) if trace else not rest
    assert all(map(gone, pids))
    with pytest.raises(UserError, match="its processes have ended"):
        env.step(STILL)


def test_the_episode_of_a_failure_counts_within_the_trial():
    env, _ = begin(family("carts.py:LateKilled"), 1, tasks=columns(goal=[0.0]), episodes=20)
    with pytest.raises(UserError, match=r"step 1 of episode 11\)$"):
        for _ in range(100):
            env.step(torch.tensor([[-0.25]]))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ("Pendulm-v1", "Pendulm-v1 cannot be made: Environment `Pendulm` doesn't exist. Did you mean: `Pendulum`?"),
        ("CartPole-v1", "has the action space Discrete(2), which must be a Box: wrap the environment"),
        ("carts.py:Crat", "carts.py has no 'Crat' (did you mean 'Cart'?); it has: "),
        ("crats.py:Cart", "cannot be made: there is no file "),
        ("crats:Cart", f"cannot be made: No module named 'crats' in {sys.executable}"),
        ("carts.py:Buttons", "has the action space Discrete(3), which must be a Box: wrap the environment"),
        ("carts.py:Boundless", "must be bounded and of floats: [-1, 1] is mapped onto it"),
        ("carts.py:Deep", "has the observation space Dict('x': Discrete(2)), which must be a Box"),
        ("carts.py:Old", "takes no options in its reset, where a task is posed, as reset(seed=1, options={'task': "),
        ("carts.py:no_environment", "makes a builtins.dict, which is no gymnasium.Env"),
        ("carts.py:no_argument", "it is called with the keyword argument render_mode, which it does not take"),
        ("carts.py:Wide", "returns an observation of shape (3,), its observation_space says (2,) (world 0, task {'goa"),
    ],
)
def test_a_newcomers_mistake_is_one_sentence(environment, sentence):
    with pytest.raises(UserError) as error:
        begin(family(environment), 1)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


STEP = "must be a tuple of 5: observation, reward, terminated, truncated, info"


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ("NoInfo", "returns None as the info of a step, which must be a dictionary"),
        ("RewardVector", "returns the reward an array of shape (1,), which must be a number"),
        ("TextFlag", "returns truncated = str 'no', which must be True or False"),
        ("FourParts", f"returns a tuple of 4 from step(), which {STEP}"),
        ("ListOfTerms", "returns list [1.0] as the info['reward_terms'], which must be a dictionary"),
        ("TextTerm", "returns the reward term 'goal' str 'much', which must be a number"),
        ("ResetAlone", "returns an array of shape (2,) from reset(), which must be a tuple of 2: observation, info"),
        ("TextSeen", "returns the observation str 'here', which must be numbers"),
    ],
)
def test_what_an_odd_environment_returns_and_must_return_is_said(environment, sentence):
    with pytest.raises(UserError) as error:
        begin(family(f"carts.py:{environment}"), 1)[0].step(STILL)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_an_environment_that_is_never_made_has_its_time_limit_for_each_world():
    with pytest.raises(UserError, match=r"did not answer within 3 s \((when world 0|before any world) was made"):
        begin(family("carts.py:Endless", time_limit=1.0), 1)


def test_what_an_environment_raises_where_it_is_made_has_its_traceback():
    with pytest.raises(UserError, match=r"raised RuntimeError: no licence \(when world 0 was made\)\nTraceback"):
        begin(family("carts.py:Broken"))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ("Careless", r"returns the reward .*, but the sum of its reward_terms is "),
        ("Fickle", r"has the reward terms term 2 at one step, term 1 at another"),
    ],
)
def test_reward_terms_add_up_and_keep_their_names(environment, sentence):
    env, _ = begin(family(f"carts.py:{environment}"), 1)
    with pytest.raises(UserError, match=sentence):
        for _ in range(2):
            env.step(torch.zeros(3, 4))


def test_an_interpreter_that_is_not_there_is_one_sentence():
    with pytest.raises(
        UserError, match=r"^the interpreter /nowhere/python cannot be run: No such file or directory; it is "
    ):
        begin(family("carts.py:Cart", python="/nowhere/python"))


# ----------------------------------------------------------------------------------------------------- no orphans


def test_processes_end_with_their_environment_and_so_does_what_they_started(tmp_path):
    env, obs = begin(family("carts.py:Forking"))
    pids = {int(pid) for pid in obs.flatten()}
    assert len(pids) == 2 + 3 and all(map(is_running, pids))
    env.close()
    assert all(map(gone, pids))
    env, obs = begin(family("carts.py:Closing"))
    env.close()
    assert (tmp_path / "closed").read_text() == "by its own close"


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from external_family import family
from metarl.sim.make import make_env
env = make_env(family("carts.py:Forking"), 2, threads=2)
print(*env.begin(env.family.space.fixed("train", 2), 0).flatten().int().tolist(), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(ROOT / "tests")]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 4 and all(map(is_running, pids))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert all(map(gone, pids))
    parent.stdin.close()
    parent.stdout.close()
