"""A control step never waits for the device: nothing in it asks what a tensor holds, and a back end may be anywhere."""

from operator import attrgetter

import pytest
import torch
from families import ALL_FAMILIES, Rail, columns
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.sim.make import make_env
from metarl.sim.mujoco import physics as back_ends
from metarl.sim.mujoco.mujoco_env import MujocoEnv, compile_spec
from metarl.sim.mujoco.physics import Dropped, Physics, make_physics
from metarl.sim.variations import Variator

LOOKS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique_dim", "_unique2", "masked_select"}


class NoWait(TorchDispatchMode):
    """Refuses every operation whose result the host would have to wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in LOOKS, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            assert not any(index is not None and index.dtype == torch.bool for index in args[1]), "indexed by a mask"
        result = func(*args, **(kwargs or {}))
        came, went = (
            {leaf.device.type for leaf in tree_leaves(v) if isinstance(leaf, torch.Tensor)} for v in (args, result)
        )
        assert not (came - {"cpu"} and "cpu" in went), f"{name} copies to the host"
        return result


@pytest.mark.parametrize("looks", [True, False], ids=["the CPU's way", "a device's way"])
@pytest.mark.parametrize(
    "name",
    ["half-cheetah-vel", "half-cheetah-body", "quadruped-body", "quadruped-crippled", "ant-dir", "hopper-params"],
)
def test_a_control_step_asks_nothing_of_a_tensor(name, looks):
    """Falls, divergence, the ends of episodes and of whole trials included; with the same results either way."""
    family, outcomes = make_family(name), []
    for looking in (True, looks):
        env = MujocoEnv(family, 4, episodes_per_trial=2, episode_steps=10, threads=1)
        env._looks = looking
        first, other = (family.space.sample("train", 4, seeding.rng(0, "test", number)) for number in range(2))
        actions = 2 * torch.rand(30, 4, env.action_size, generator=seeding.generator(0, "test")) - 1
        obs, steps = env.begin(first, 1, clock=torch.tensor([0, 5, 0, 10])), []
        for t, action in enumerate(actions):
            if t == 4:
                env.physics.bind("qpos")[1] += 1.7  # over for most
            if t == 6:
                env.physics.bind("qvel")[2] = float("nan")
            if t % 20 == 0:
                env.queue(other)
            with NoWait():
                steps.append(env.step(action))
        env.check()
        outcomes.append([obs, *(value for step in steps for value in vars(step).values() if torch.is_tensor(value))])
    ended = torch.stack([step.terminated for step in steps])
    assert steps[6].diverged.tolist() == [False, False, True, False]
    assert bool(ended[:, 1].any()) == name.startswith(("ant", "quad", "hopper"))
    assert all(torch.equal(one, two) for one, two in zip(*outcomes, strict=True))


# a second back end


class Cart:
    """The rail's cart in plain torch and float32: a back end that never looks at a mask."""

    seconds_to_compile = 0.0

    def __init__(self, model, num_worlds, threads=0, device=None, counts=None):
        self.model, self.num_worlds = model, num_worlds
        self.device, self.dtype = torch.device(device or DEVICE), torch.float32
        self._fields = {name: torch.zeros(num_worlds, 1, device=self.device) for name in ("qpos", "qvel", "ctrl")}
        self._models = {}

    def bind(self, field, *, fresh=True, at_start=True):
        return self._fields[field]

    def expand(self, field):
        value = torch.from_numpy(attrgetter(field)(self.model).copy()).to(self.device, self.dtype)
        return self._models.setdefault(field, value.expand(self.num_worlds, *value.shape).clone())

    def covering(self, mask):
        return torch.arange(self.num_worlds, device=self.device)

    def set_const(self, mask):
        pass

    def reset(self, mask):
        self.restart(mask, lambda worlds: None)

    def restart(self, mask, write):
        before = {name: value.clone() for name, value in self._fields.items()}
        for value in self._fields.values():
            value.zero_()
        write(self.covering(mask))
        for name, value in self._fields.items():
            value.copy_(torch.where(mask[:, None], value, before[name]))

    def step(self, num_substeps):
        for _ in range(num_substeps):
            self._fields["qvel"] += 0.01 * 100.0 * self._fields["ctrl"]
            self._fields["qpos"] += 0.01 * self._fields["qvel"]

    def forward(self, mask):
        pass

    def diverged(self):
        return torch.zeros(self.num_worlds, dtype=torch.bool, device=self.device)

    def dropped(self):
        return Dropped()

    def get_state(self):
        return torch.cat(list(self._fields.values()), dim=1)

    def set_state(self, state):
        for value, column in zip(self._fields.values(), state.split(1, dim=1), strict=True):
            value.copy_(column)

    def model_of(self, world):
        return self.model

    def data_of(self, world, data=None):
        raise UserError("this back end draws nothing")


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def cart(monkeypatch):
    monkeypatch.setitem(back_ends.PHYSICS, "cart", f"{__name__}:Cart")


def test_a_back_end_of_another_precision_and_device_needs_no_other_family(cart):
    """Tasks, constants and draws follow it; episodes fall, end and roll as on the CPU."""
    model = compile_spec(Rail().spec())
    assert isinstance(make_physics("cart", model, 2), Physics)
    tasks, other = columns(goal=[0.0, 0.1, 0.2]), columns(goal=[0.5, 0.6, 0.7])
    reference, env = (
        make_env(Rail(), 3, physics=name, device=DEVICE, task_visible=True, threads=1) for name in ("mujoco", "cart")
    )
    env._looks = False
    assert (env.device.type, env.dtype, env.info) == (DEVICE, torch.float32, reference.info)
    clock = torch.tensor([0, 3, 0])
    first = [each.begin(tasks, 5, clock=clock) for each in (reference, env)]
    torch.testing.assert_close(first[1].cpu(), first[0])
    for each in (reference, env):
        each.queue(other)
    action = torch.tensor([[1.0], [0.0], [0.3]])
    for _ in range(8):
        one = reference.step(action)
        with NoWait():
            two = env.step(action.to(env.device))
        for name, value in vars(one).items():
            if torch.is_tensor(value):
                torch.testing.assert_close(vars(two)[name].cpu(), value, atol=1e-5, rtol=1e-5)
    env.check()


class AllFar(TorchDispatchMode):
    """Refuses operations with tensors of the host, such as indices: each would be copied."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        near = {leaf.shape for leaf in tree_leaves((args, result)) if torch.is_tensor(leaf) and not leaf.is_meta}
        assert not near, f"{func} has tensors of the host, {near}"
        return result


@pytest.mark.parametrize("name", [name for name in ALL_FAMILIES if make_family(name).variations])
def test_a_new_task_copies_nothing_from_the_host(name):
    """But for constants, the first time."""
    family = make_family(name)
    variator = Variator(Cart(compile_spec(family.spec()), 4, device="meta"), family.variations)
    mask = torch.ones(4, dtype=torch.bool, device="meta")
    tasks = family.space.sample("train", 4, seeding.rng(0, "test")).to(torch.device("meta"), torch.float32)
    variator.apply(tasks, mask)
    with AllFar():
        variator.apply(tasks, mask)


def test_an_unknown_back_end_and_a_device_it_does_not_have_are_refused():
    with pytest.raises(UserError, match=r"unknown physics 'mujocco' \(did you mean 'mujoco'\?\); available: mujoco"):
        make_env(Rail(), 2, physics="mujocco")
    with pytest.raises(UserError, match="'mujoco' works on the device 'cpu', not on 'cuda'"):
        make_physics("mujoco", compile_spec(Rail().spec()), 2, device="cuda")
