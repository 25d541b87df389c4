"""Environments of a suite of its own: a cart on a line, and some that fail. Knows Gymnasium and nothing of metarl."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

HERE = Path(__file__).parent


class Cart(gymnasium.Env):
    """Action in [-3, 5] m/s²; r = -|x - goal|; the episode is over past 0.9 m."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (as Gymnasium has it)
    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-3.0, 5.0, (1,), np.float32)
    task = None

    def __init__(self, render_mode=None):
        self.render_mode, self.steps = render_mode, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.task = options["task"]
        self.x, self.v = self.np_random.uniform(-0.1, 0.1), 0.0
        return self.seen(), {}

    def step(self, action):
        self.steps += 1
        self.v += 0.1 * float(action[0])
        self.x += 0.1 * self.v
        return self.seen(), self.reward(), bool(abs(self.x) > 0.9), False, {}

    def seen(self):
        return np.array([self.x, self.v])

    def reward(self):
        return -abs(self.x - self.task["goal"])

    def render(self):
        picture = np.full((60, 120, 3), 200, np.uint8)
        column = int(np.clip(60 + 50 * self.x, 5, 115))
        picture[20:40, column - 5 : column + 5] = (200, 60, 20)
        return picture


class Blabbing(Cart):
    """Shows its goal under noise."""

    def seen(self):
        return np.array([self.x, self.v + self.task["goal"] + self.np_random.normal(0.0, 0.1)])


class BlabbingLater(Cart):
    """Shows its goal after two steps."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float64)

    def reset(self, **words):
        self.steps = 0
        return super().reset(**words)

    def seen(self):
        return np.array([self.x, self.v, self.task["goal"] * (self.steps > 2)])


class Shy(Cart):
    """Draws nothing."""

    def render(self):
        return None


class Deaf(Cart):
    """Knows one goal, whatever it is asked for."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options={"task": {"goal": 0.0}})


class Unseeded(Cart):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None, options=options)


class Limited(Cart):
    """Has a time limit of its own, of 4 steps."""

    def reset(self, **words):
        self.steps = 0
        return super().reset(**words)

    def step(self, action):
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, self.steps == 4, info


class Square(Cart):
    """Observation and action are of shape (2, 2); the reward is the action's second row, in terms."""

    observation_space = Box(-np.inf, np.inf, (2, 2), np.float32)
    action_space = Box(np.array([[-1.0, 0.0], [-2.0, 10.0]]), np.array([[1.0, 1.0], [2.0, 30.0]]), dtype=np.float64)
    total = 0.0

    def seen(self):
        return np.float32([[self.x, 1.0], [2.0, 3.0]])

    def step(self, action):
        terms = {"first": action[1, 0], "second": action[1, 1]}
        return self.seen(), sum(terms.values()) + self.total, False, False, {"reward_terms": terms}


class Careless(Square):
    total = 0.5


class Fickle(Square):
    def step(self, action):
        obs, reward, *ends = super().step(action)[:4]
        self.steps += 1
        return obs, reward, *ends, {"reward_terms": {f"term {self.steps}": reward}}


class Failing(Cart):
    """Fails at its third step, if its goal lies to the right."""

    def step(self, action):
        _, *rest = super().step(action)
        if self.steps == 3 and self.task["goal"] > 0:
            self.fail()
        return self.seen(), *rest


class Raising(Failing):
    def fail(self):
        raise ValueError("the bearing is stuck")


class Killed(Failing):
    def fail(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Crashing(Failing):
    def fail(self):
        ctypes.string_at(0)


class Exiting(Failing):
    def fail(self):
        os._exit(3)


class Hanging(Failing):
    def fail(self):
        time.sleep(1000)


class Lost(Failing):
    """Its place is nowhere from the third step on."""

    def fail(self):
        self.x = np.nan


class LostAtOnce(Cart):
    def seen(self):
        return np.array([np.inf, 0.0])


class Unpaid(Failing):
    def fail(self):
        self.unpaid = True

    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, np.nan if self.steps == 3 else reward, *rest


class LateKilled(Cart):
    """Loses its process after 60 steps."""

    def step(self, action):
        if self.steps == 60:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Forking(Cart):
    """A simulator in a process of its own, which it forgets to end; tells its own and that one's number."""

    def seen(self):
        if not hasattr(self, "server"):
            self.server = subprocess.Popen(["sleep", "1000"]).pid
        return np.array([os.getpid(), self.server], np.float64)


class Closing(Cart):
    """Leaves word when it is closed."""

    def close(self):
        Path("closed").write_text("by its own close")


class Elsewhere(Cart):
    """Observes whether it runs in a virtual environment called `suite`, and how many of our packages it has met."""

    def seen(self):
        return np.array([Path(sys.prefix).name == "suite", len({"metarl", "torch", "mujoco"} & set(sys.modules))])


class Wide(Cart):
    def seen(self):
        return np.zeros(3)


class Deep(Cart):
    observation_space = Dict({"x": Discrete(2)})


class Buttons(Cart):
    action_space = Discrete(3)


class Boundless(Cart):
    action_space = Box(-np.inf, np.inf, (1,), np.float32)


class Old(Cart):
    def reset(self, seed=None):
        raise AssertionError


class Broken(Cart):
    def __init__(self, render_mode=None):
        raise RuntimeError("no licence")


class Endless(Cart):
    """Is never made."""

    def __init__(self, render_mode=None):
        time.sleep(1000)


class NoInfo(Cart):
    def step(self, action):
        return (*super().step(action)[:4], None)


class RewardVector(Cart):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, np.array([reward]), *rest


class TextFlag(Cart):
    def step(self, action):
        return (*super().step(action)[:3], "no", {})


class FourParts(Cart):
    """Steps as Gym did before Gymnasium."""

    def step(self, action):
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, info


class ListOfTerms(Cart):
    def step(self, action):
        return (*super().step(action)[:4], {"reward_terms": [1.0]})


class TextTerm(Cart):
    def step(self, action):
        return (*super().step(action)[:4], {"reward_terms": {"goal": "much"}})


class ResetAlone(Cart):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options=options)[0]


class TextSeen(Cart):
    def seen(self):
        return "here"


def no_environment(render_mode=None):
    return {}


def no_argument():
    return Cart()


class Pendulum(gymnasium.Wrapper):
    """Gymnasium's own, of unknown mass."""

    def __init__(self, render_mode=None):
        super().__init__(gymnasium.make("Pendulum-v1", render_mode=render_mode).unwrapped)

    def reset(self, *, seed=None, options=None):
        self.env.m = options["task"]["mass"]
        return self.env.reset(seed=seed)
