"""What runs in a worker process: some of the worlds of an `ExternalFamily`, each a Gymnasium environment.

It runs in other people's Python environments: it imports nothing but the standard library, NumPy and Gymnasium, and
is written for Python 3.10. It answers one request after another over a socket, until the socket or its standard input
is closed. A message is a line of JSON, and the arrays that it announces as raw bytes.
"""

from __future__ import annotations

import contextlib
import difflib
import faulthandler
import importlib
import importlib.util
import inspect
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

try:
    import numpy as np
except ModuleNotFoundError:  # of a foreign interpreter; the parent says what is missing
    sys.exit(1)

Message = dict[str, Any]
GRACE = 1.0
"""Time an environment has to close itself [s]; then its process and all that it started are ended."""


class Refusal(Exception):  # noqa: N818 (it is none of ours: the environment is refused)
    """What is wrong with an environment, in one sentence that begins with a verb."""


# ------------------------------------------------------------------------------------------------------ the wire


def send(connection: socket.socket, message: Message, *arrays: np.ndarray) -> None:
    """Write a message and its arrays."""
    layout = [(array.dtype.str, array.shape) for array in arrays]
    header = json.dumps({**message, "arrays": layout}).encode()
    connection.sendall(struct.pack("<I", len(header)) + header + b"".join(array.tobytes() for array in arrays))


def receive(connection: socket.socket) -> tuple[Message, list[np.ndarray]]:
    """Read a message and its arrays; `EOFError` where the other end is closed."""
    (size,) = struct.unpack("<I", _read(connection, 4))
    message: Message = json.loads(_read(connection, size))
    arrays = []
    for kind, shape in message.pop("arrays"):
        dtype = np.dtype(kind)
        data = _read(connection, dtype.itemsize * int(np.prod(shape)))
        arrays.append(np.frombuffer(data, dtype).reshape(shape))
    return message, arrays


def _read(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return data


# -------------------------------------------------------------------------------------------------- environments


class Worlds:
    """The worlds of one process. The methods are the requests."""

    def __init__(self, notes: int, environment: str, first: int, num: int, episode_steps: int, pictures: bool) -> None:
        """`first` is the number of the first of `num` worlds; the one that is stepped is noted in the file `notes`."""
        self._notes, self._first = notes, first
        self._terms: list[str] = []
        self._envs: list[Any] = []
        for world in range(num):
            self._note(world)
            env = _make(environment, episode_steps, "rgb_array" if pictures else None)
            if world == 0:
                _require_usable(env)
            self._envs.append(env)
        space, self._shape = self._envs[0].action_space, self._envs[0].observation_space.shape
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)

    def describe(self) -> tuple[Message, list[np.ndarray]]:
        """Sizes of one world's observation and action, and what it runs on."""
        import gymnasium

        sizes = {"observation_size": int(np.prod(self._shape)), "action_size": int(self._low.size)}
        return {**sizes, "python": sys.version.split()[0], "gymnasium": gymnasium.__version__}, []

    def reset(self, worlds: list[int], seeds: list[int], tasks: list[Message]) -> tuple[Message, list[np.ndarray]]:
        """Begin an episode in each of `worlds`, numbered within this process; their first observations (n, O)."""
        first = []
        for world, seed, task in zip(worlds, seeds, tasks):  # noqa: B905 (their lengths agree)
            self._note(world)
            values = {name: np.array(value) if isinstance(value, list) else value for name, value in task.items()}
            answer = self._envs[world].reset(seed=seed, options={"task": values})
            obs, info = _parts(answer, "reset", ("observation", "info"))
            _mapping(info, "info of a reset")
            first.append(self._flat(obs))
        return {}, [np.stack(first)]

    def step(self, actions: np.ndarray) -> tuple[Message, list[np.ndarray]]:
        """One step of every world, with actions (N, A) in [-1, 1].

        Answers with observations (N, O), whether they terminated, were truncated and succeeded, and the terms of the
        rewards (names, N). `tells` says whether the environments' `info` has a "success" at all.
        """
        obs, ends, rewards, tells = [], [], [], False
        for world, (env, action) in enumerate(zip(self._envs, actions)):  # noqa: B905
            self._note(world)
            scaled = self._low + (action.reshape(self._low.shape) + 1.0) * (self._high - self._low) / 2
            names = ("observation", "reward", "terminated", "truncated", "info")
            seen, reward, *flags, info = _parts(env.step(scaled.astype(env.action_space.dtype)), "step", names)
            obs.append(self._flat(seen))
            ends.append([_flag(flag, name) for flag, name in zip(flags, names[2:])])  # noqa: B905
            told = _mapping(info, "info of a step")
            tells = tells or "success" in told
            ends[-1].append(_number(told.get("success", 0.0), "info['success']") > 0.5)
            rewards.append(self._named(_number(reward, "reward"), told.get("reward_terms")))
        found = {"terms": self._terms, "tells": tells}
        return found, [np.stack(obs), *np.array(ends).T, np.array(rewards).T]

    def render(self, worlds: list[int]) -> tuple[Message, list[np.ndarray]]:
        """Pictures (H, W, 3) of `worlds`."""
        pictures = []
        for world in worlds:
            self._note(world)
            picture = self._envs[world].render()
            if not (isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 3):
                kind = "None" if picture is None else f"a {type(picture).__name__}"
                raise Refusal(f"draws no picture: render() in the mode 'rgb_array' returns {kind}, no array (H, W, 3)")
            pictures.append(np.asarray(picture, np.uint8))
        return {}, pictures

    def close(self) -> None:
        """Let environments end what they have started."""
        for env in self._envs:
            with contextlib.suppress(Exception):
                env.close()

    def _note(self, world: int) -> None:
        """Write down which world is stepped: if it crashes the process, this note remains."""
        os.pwrite(self._notes, struct.pack("<i", self._first + world), 0)

    def _flat(self, obs: Any) -> np.ndarray:
        try:
            array = np.asarray(obs, np.float32)
        except (TypeError, ValueError):
            raise Refusal(f"returns the observation {_shown(obs)}, which must be numbers") from None
        if array.shape != self._shape:
            raise Refusal(f"returns an observation of shape {array.shape}, its observation_space says {self._shape}")
        return array.ravel()

    def _named(self, reward: float, terms: Any) -> list[float]:
        """The named terms of a reward: those in `info`, if it has any, else the reward itself."""
        named = {"reward": reward}
        if terms is not None:
            terms = _mapping(terms, "info['reward_terms']")
            named = {str(name): _number(term, f"reward term '{name}'") for name, term in terms.items()}
        self._terms = self._terms or list(named)
        if list(named) != self._terms:
            raise Refusal(f"has the reward terms {', '.join(named)} at one step, {', '.join(self._terms)} at another")
        total = sum(named.values())
        if abs(total - reward) > 1e-6 * (1.0 + abs(reward)):
            raise Refusal(f"returns the reward {reward}, but the sum of its reward_terms is {total}")
        return list(named.values())


def _parts(answer: Any, method: str, names: tuple[str, ...]) -> Any:
    """What a method returned, if it is a tuple of what Gymnasium says."""
    if not isinstance(answer, tuple) or len(answer) != len(names):
        kind = f"a tuple of {len(answer)}" if isinstance(answer, tuple) else _shown(answer)
        raise Refusal(f"returns {kind} from {method}(), which must be a tuple of {len(names)}: {', '.join(names)}")
    return answer


def _number(value: Any, what: str) -> float:
    """A number of Python's or NumPy's, or an array of none dimension."""
    if np.ndim(value) == 0:
        with contextlib.suppress(TypeError, ValueError):
            return float(value)
    raise Refusal(f"returns the {what} {_shown(value)}, which must be a number")


def _flag(value: Any, what: str) -> bool:
    if isinstance(value, (bool, np.bool_)) or (np.ndim(value) == 0 and value in (0, 1)):
        return bool(value)
    raise Refusal(f"returns {what} = {_shown(value)}, which must be True or False")


def _mapping(value: Any, what: str) -> Any:
    if not isinstance(value, dict):
        raise Refusal(f"returns {_shown(value)} as the {what}, which must be a dictionary")
    return value


def _shown(value: Any) -> str:
    """A value in a few words: an array by its shape."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"{type(value).__name__} {value!r:.60}" if value is not None else "None"


def _make(environment: str, episode_steps: int, render_mode: str | None) -> Any:
    """One environment: of a Gymnasium id, or of what `module:function` or `path/to/file.py:function` returns."""
    gymnasium = _module("gymnasium")
    place, _, name = environment.rpartition(":")
    if not (place and name.isidentifier()):  # an id ends in a version, as -v0
        try:
            return gymnasium.make(
                environment, max_episode_steps=episode_steps, disable_env_checker=True, render_mode=render_mode
            )
        except gymnasium.error.Error as error:
            raise Refusal(f"cannot be made: {error}") from None
    module = _from_file(Path(place)) if place.endswith(".py") else _module(place)
    if not hasattr(module, name):
        raise Refusal(f"cannot be made: {place} has no '{name}'{_instead(name, module)}")
    function = getattr(module, name)
    if "render_mode" not in inspect.signature(function).parameters:
        raise Refusal("cannot be made: it is called with the keyword argument render_mode, which it does not take")
    env = function(render_mode=render_mode)
    if not isinstance(env, gymnasium.Env):
        raise Refusal(f"makes a {type(env).__module__}.{type(env).__name__}, which is no gymnasium.Env")
    return env


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Refusal(f"cannot be made: {error} in {sys.executable}") from None


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise Refusal(f"cannot be made: there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise Refusal(f"cannot be made: {path.name} does not import: {error} in {sys.executable}") from None
    return module


def _instead(name: str, module: Any) -> str:
    """The nearest name among a module's own, and all of them."""
    own = sorted(key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__)
    near = difflib.get_close_matches(name, own, n=1, cutoff=0.5)
    return (f" (did you mean '{near[0]}'?)" if near else "") + f"; it has: {', '.join(own) or 'nothing'}"


def _require_usable(env: Any) -> None:
    """`Refusal` unless both spaces are boxes, actions are bounded, and a reset takes options."""
    from gymnasium.spaces import Box

    for kind, space in (("observation", env.observation_space), ("action", env.action_space)):
        if not isinstance(space, Box):
            raise Refusal(f"has the {kind} space {space}, which must be a Box: wrap the environment")
    action = env.action_space
    if not np.issubdtype(action.dtype, np.floating) or not action.is_bounded():
        raise Refusal(f"has the action space {action}, which must be bounded and of floats: [-1, 1] is mapped onto it")
    arguments = inspect.signature(env.unwrapped.reset).parameters
    if "options" not in arguments and all(one.kind is not one.VAR_KEYWORD for one in arguments.values()):
        raise Refusal(
            "takes no options in its reset, where a task is posed, as reset(seed=1, options={'task': {...}}): "
            "wrap the environment"
        )


# ---------------------------------------------------------------------------------------------------- the process


def _leave_with_parent() -> None:
    """Wait for the end of standard input, whose other end only the parent holds, and end the process."""
    while os.read(0, 64):
        pass
    time.sleep(GRACE)
    _end()


def _end() -> None:
    """End the process and all that it has started."""
    os.killpg(0, signal.SIGKILL)


def _answer(worlds: Worlds, request: Message, arrays: list[np.ndarray]) -> tuple[Message, list[np.ndarray]]:
    arguments = request["arguments"]
    answer: tuple[Message, list[np.ndarray]] = getattr(worlds, request["do"])(*arguments, *arrays)
    return answer


def _failure(error: Exception) -> Message:
    """An exception as plain data; its traceback begins in the user's code."""
    if isinstance(error, Refusal):
        return {"error": str(error), "trace": ""}
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    return {"error": f"raised {type(error).__name__}: {error}", "trace": "".join(lines).rstrip()}


def main(folder: str, connection: socket.socket, notes: int) -> None:
    """Serve; the folder of the family's file is where imports are looked for first."""
    faulthandler.enable(notes, all_threads=False)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    here = str(Path(__file__).parent)  # whose files have the names of other packages
    sys.path[:] = [folder, *(place for place in sys.path if place != here)]
    os.dup2(2, 1)  # what an environment prints is no output of the command
    worlds: Worlds | None = None
    while True:
        try:
            request, arrays = receive(connection)
            try:
                if worlds is None:
                    worlds = Worlds(notes, *request["arguments"])
                    message, arrays = worlds.describe()
                else:
                    message, arrays = _answer(worlds, request, arrays)
            except Exception as error:  # whatever the user's environment raises is for the parent to tell
                message, arrays = _failure(error), []
            send(connection, message, *arrays)
        except (EOFError, ConnectionError):  # the parent has closed its end
            break
    if worlds is not None:
        worlds.close()
    _end()


if __name__ == "__main__":
    main(sys.argv[1], socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))
