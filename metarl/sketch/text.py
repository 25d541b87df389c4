"""The Python file of a family, as `metarl new` writes it: what its author reads and edits from there."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from metarl.sketch.declared import disturbances, parameters, parts, span_of, variations
from metarl.sketch.robot import Robot

_WIDTH = 120
_MODULES = {
    "metarl": ("MujocoFamily", "Parameter", "Part", "TaskSpace"),
    "metarl.core.tasks": ("Ball", "LogUniform", "Uniform"),
    "metarl.sim.disturbances": ("ActionLatency", "Kick", "Sensor"),
    "metarl.sim.family": ("constant_like", "model_constant"),
    "metarl.sim.mujoco.menagerie": ("menagerie",),
    "metarl.sim.rotations": ("axes_of",),
    "metarl.sim.variations": ("BodyMass", "Friction", "MotorStrength", "Payload", "ServoGain", "SitePosition"),
}
"""What a family may use, and where it comes from."""
_SERVOS = """\
        home, reach, kp, kd, limit = SERVOS[servo.target]
        servo.name = servo.target
        servo.set_to_position(kp=kp, kv=kd)
        servo.gear[0] = 1.0
        servo.ctrllimited = servo.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
        servo.ctrlrange, servo.forcerange = (home - reach, home + reach), (-limit, limit)
"""
_SENSED = """\
    named = {servo.name: servo.target for servo in spec.actuators if servo.target in SERVOS}
    for sensor in spec.sensors:  # of motors, which get new names
        if sensor.objtype == mujoco.mjtObj.mjOBJ_ACTUATOR:
            sensor.objname = named.get(sensor.objname, sensor.objname)
"""
_PREVIOUS = '''
def previous_action(self, physics):
    """What was commanded last, in [-1, 1]."""
    ctrl = physics.bind("ctrl")
    low, high = model_constant(physics.model, "actuator_ctrlrange", ctrl).unbind(dim=1)
    return (2.0 * ctrl - low - high) / (high - low)

def snapshot(self, physics):
    """What `reward` needs to know of the state before the step."""
    return self.previous_action(physics)
'''
_COSTS = """\
        "effort": -0.05 * action.square().mean(dim=1),
        "jerk": -0.1 * (action - before).square().mean(dim=1),
    }
"""
_REWARD = {
    "free": '''
def reward(self, physics, before, action, tasks):
    """1 per step at the wanted speed straight ahead, less what leaning, turning and hectic motors cost."""
    qpos, qvel = physics.bind("qpos"), physics.bind("qvel")
    axes = axes_of(qpos[:, 3:7])
    velocity = (axes.mT @ qvel[:, :3, None])[:, :, 0]  # in the base's frame
    error = (velocity[:, 0] - tasks["speed"]).square() + velocity[:, 1].square()
    return {
        "speed": 1.0 / (1.0 + error / NEAR**2),
        "upright": axes[:, 2, 2] - 1.0,
        "turn": -0.05 * qvel[:, 5].square(),
''',
    "rail": '''
def reward(self, physics, before, action, tasks):
    """1 per step at the wanted speed, less what hectic motors cost."""
    error = (physics.bind("qvel")[:, $forward] - tasks["speed"]).square()
    return {
        "speed": 1.0 / (1.0 + error / NEAR**2),
''',
    "fixed": '''
def reward(self, physics, before, action, tasks):
    """1 per step at the goal, less what hectic motors cost."""
    tip = physics.bind("xpos")[:, physics.model.body(TIP).id]
    error = (tip - constant_like(TIP_PLACE, tip) - tasks["goal"]).square().sum(dim=1)
    return {
        "reach": 1.0 / (1.0 + error / NEAR**2),
''',
}
_TERMINATED = {
    "free": '''
def terminated(self, physics, tasks):
    """Fallen: leaning by more than 60°, or sunk to half its height."""
    qpos = physics.bind("qpos")
    return (axes_of(qpos[:, 3:7])[:, 2, 2] < 0.5) | (qpos[:, 2] < 0.5 * HEIGHT)
''',
    "rail": '''
def terminated(self, physics, tasks):
    """Fallen: sunk to 60 % of its height."""
    return physics.bind("xpos")[:, physics.model.body(BASE).id, 2] < 0.6 * HEIGHT
''',
    "fixed": "",
}
_DOES = {
    "free": "Walk ahead at a speed that the reward alone tells, upright, without veering.",
    "rail": "Run along x at a speed that the reward alone tells.",
    "fixed": "Bring the tip to a place that the reward alone tells.",
}


@dataclass(frozen=True)
class Draft:
    """What of a family is written."""

    robot: Robot
    name: str
    """Of its class."""
    file: str
    """Of the Python file, as its head quotes it."""
    source: str
    """Where the robot comes from, for the head."""
    model: str
    """A Python expression of the model, a `MjSpec`."""
    path: str = ""
    """Of the model beside the Python file; empty where `model` needs none."""
    falls: bool = True
    """An episode ends by a fall."""
    without: tuple[str, ...] = ()
    """Task parameters that have no effect on this robot, and are left out."""


def text(draft: Draft) -> str:
    """The whole file."""
    kind = draft.robot.kind
    methods = [_spec(draft), _reset(draft.robot), _observe(draft.robot), _PREVIOUS, _REWARD[kind] + _COSTS]
    methods += [_TERMINATED[kind]] if draft.falls and _TERMINATED[kind] else []
    body = "\n".join((_declared(draft), *(method.strip("\n") + "\n" for method in methods)))
    body = body.replace("$forward", str(draft.robot.forward))
    written = f"{_constants(draft)}\n\nclass {draft.name}(MujocoFamily):\n{textwrap.indent(body, '    ')}"
    return f"{_head(draft)}\n{_imports(written)}\n{written}"


def _head(draft: Draft) -> str:
    task = "reach unknown places" if draft.robot.kind == "fixed" else "move at an unknown speed"
    family, where = f"{_plain(draft.file)}:{draft.name}", f"runs/{draft.name.lower()}"
    source = _plain(draft.source)
    guessed = sum(servo.estimated for servo in draft.robot.servos)
    strength = f"The model does not say how strong {guessed} motors are: guessed from masses. " if guessed else ""
    return f'''"""{draft.name}: {task}, in an unknown body. Written by `metarl new` from {source}: edit it.

    metarl check {family}
    metarl video {family} --agent random --output videos/look.mp4
    metarl train rl2 {family} --seed 1 --total-steps 3_000_000 --output {where}

{strength}Gains and ranges follow from force limits and masses ({draft.robot.mass:.3g} kg in all): look at them first.
"""
'''


def _imports(written: str) -> str:
    lines = ["from pathlib import Path", ""] if "Path(" in written else []
    lines += ["import mujoco"] if "mujoco." in written else []
    lines += ["import torch", ""] if "torch." in written else [""]
    for module, names in _MODULES.items():
        found = [name for name in names if f"{name}(" in written or f"({name})" in written]
        lines += [f"from {module} import {', '.join(found)}"] if found else []
    return "\n".join(lines) + "\n"


def _constants(draft: Draft) -> str:
    robot, lines = draft.robot, []
    if draft.path:
        lines.append(f"MODEL = Path(__file__).parent / {_quoted(draft.path)}")
    if robot.kind == "fixed":
        lines += [
            f"TIP = {_quoted(robot.base)}",
            f"TIP_PLACE = torch.tensor({_tuple(robot.place)}, dtype=torch.float64)  # [m], at home",
        ]
        lines.append(f"NEAR = {span_of(robot) / 4:.2g}  # [m] off the goal halves the reward")
    else:
        height = robot.home[2] if robot.kind == "free" else robot.place[2]
        lines.append(
            f"BASE, HEIGHT = {_quoted(robot.base)}, {height:.3g}  # [m] of its origin above the ground, at the start"
        )
        lines.append(f"NEAR = {robot.speed / 4:.2g}  # [m/s] off the wanted speed halves the reward")
    if robot.servos:
        lines.append("SERVOS = {  # joint: home and reach of an action of 1 [rad, m], P and D, force limit [N·m, N]")
        lines += [
            f"    {_quoted(s.joint)}: {_tuple((s.home, s.reach, s.kp, s.kd, s.limit))}," for s in robot.servos
        ] + ["}"]
    if _short_home(robot):
        lines.append("HOME = torch.tensor([servo[0] for servo in SERVOS.values()], dtype=torch.float64)")
    elif not robot.default:
        lines += _listed("HOME = torch.tensor(", "[", map(_number, robot.home), "]", ", dtype=torch.float64)  # qpos")
    if robot.joints and list(robot.joints) != [servo.joint for servo in robot.servos]:
        lines += _listed("JOINTS = ", "(", map(_quoted, robot.joints), ")")
    elif robot.joints:
        lines.append("JOINTS = tuple(SERVOS)")
    for name, places, field in (("ANGLES", robot.angles, "qpos"), ("RATES", robot.rates, "qvel")):
        if places and not _is_run(places):
            lines += _listed(f"{name} = ", "[", map(str, places), "]", f"  # of the joints, in {field}")
    return "\n".join([*lines, ""])


def _declared(draft: Draft) -> str:
    robot = draft.robot
    steps = round(5.0 / robot.control_step)
    head = f'"""{_DOES[robot.kind]}"""\n\ncontrol_step, episode_steps = {robot.control_step:g}, {steps}\n'
    varied = {name: line for name, line in parameters(robot).items() if name not in draft.without}
    how = [line for name, line in variations(robot).items() if name in varied]
    space = "".join(f'        "{name}": {line},\n' for name, line in varied.items())
    return (
        f"{head}space = TaskSpace(\n    {{\n{space}    }}\n)\n"
        + _tupled("variations", how)
        + _tupled("disturbances", disturbances(robot))
        + _tupled("observation", parts(robot))
    )


def _spec(draft: Draft) -> str:
    robot = draft.robot
    lines = [
        "def spec(self):",
        '    """The model, with servos that hold the home pose."""',
        f"    spec = {draft.model}",
    ]
    if robot.unnamed:
        lines.append(f"    spec.bodies[{robot.unnamed}].name = {_quoted(robot.base)}")
    if robot.euler:
        lines.append(
            "    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST  # servos with damping ask for it"
        )
    if not robot.floor and robot.kind != "fixed":
        lines.append(
            "    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(40.0, 40.0, 1.0))  # the ground"
        )
    if robot.kind == "fixed":
        lines.append('    aim = spec.worldbody.add_body(name="aim", pos=TIP_PLACE.tolist())')
        lines.append('    aim.add_site(name="goal", size=(NEAR / 4, 0.0, 0.0), rgba=(0.1, 0.75, 0.25, 0.6))')
    for index, low, high in robot.ranges:
        lines.append(f"    spec.actuators[{index}].ctrlrange = ({low:g}, {high:g})")
    if robot.bare:
        lines += [
            "    for joint in SERVOS:",
            "        servo = spec.add_actuator(target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)",
        ]
    elif robot.servos:
        chosen = "[servo for servo in spec.actuators if servo.target in SERVOS]" if robot.kept else "spec.actuators"
        lines += [_SENSED.rstrip()] if robot.sensed else []
        lines.append(f"    for servo in {chosen}:")
    return "\n".join(lines) + "\n" + (_SERVOS if robot.servos else "") + "    return spec\n"


def _reset(robot: Robot) -> str:
    lines = [
        "def reset(self, physics, worlds, tasks, random):",
        '    """At home, but for up to 0.05 rad in each joint."""',
        '    qpos = physics.bind("qpos")',
    ]
    if not robot.default and not _short_home(robot):
        lines.append("    qpos[worlds] = constant_like(HOME, qpos)")
    elif robot.kind == "free":
        lines.append("    qpos[worlds, 2] = HEIGHT")
    if robot.angles:
        rows = f"worlds, {_columns(robot.angles)}" if _is_run(robot.angles) else "worlds[:, None], ANGLES"
        home = "= constant_like(HOME, qpos) +" if _short_home(robot) else "+="
        lines.append(f"    qpos[{rows}] {home} random.uniform(-0.05, 0.05, {len(robot.angles)})")
    else:
        lines.append('    physics.bind("qvel")[worlds] += random.uniform(-0.05, 0.05, physics.model.nv)')
    lines.append(
        '    physics.bind("ctrl")[worlds] = model_constant(physics.model, "actuator_ctrlrange", qpos).mean(dim=1)'
    )
    return "\n".join(lines) + "\n"


def _observe(robot: Robot) -> str:
    lines = [
        "def observe(self, physics, tasks):",
        '    """What the robot\'s own sensors tell."""',
        '    qpos, qvel = physics.bind("qpos"), physics.bind("qvel")',
        "    return {",
    ]
    if robot.kind == "free":
        lines += ['        "gyro": qvel[:, 3:6],', '        "gravity": -axes_of(qpos[:, 3:7])[:, 2],']
    if robot.joints:
        angles = _columns(robot.angles) if _is_run(robot.angles) else "ANGLES"
        rates = _columns(robot.rates) if _is_run(robot.rates) else "RATES"
        lines += [f'        "joint_position": qpos[:, {angles}],', f'        "joint_velocity": qvel[:, {rates}],']
    else:
        lines.pop(2)
    return "\n".join([*lines, '        "previous_action": self.previous_action(physics),', "    }", ""])


def _short_home(robot: Robot) -> bool:
    """The home pose is what the servos hold: nothing else differs from the model's own."""
    return robot.kind == "free" and not robot.default and robot.plain and bool(robot.servos) and _is_run(robot.angles)


def _is_run(places: Sequence[int]) -> bool:
    """The places follow each other."""
    return list(places) == list(range(places[0], places[0] + len(places)))


def _columns(places: Sequence[int]) -> str:
    return f"{places[0]}:{places[-1] + 1}"


def _tupled(name: str, lines: list[str]) -> str:
    return f"{name} = (\n" + "".join(f"    {line},\n" for line in lines) + ")\n" if lines else ""


def _listed(head: str, opening: str, items: Iterable[str], closing: str, tail: str = "") -> list[str]:
    """An assignment of a list, on one line if it fits."""
    items = list(items)
    comma = "," if len(items) == 1 and opening == "(" else ""
    line = f"{head}{opening}{', '.join(items)}{comma}{closing}{tail}"
    if len(line) <= _WIDTH:
        return [line]
    rows = textwrap.wrap(", ".join(items) + ",", _WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    return [f"{head}{opening}", *(f"    {row}" for row in rows), f"{closing}{tail}"]


def _tuple(values: Iterable[float]) -> str:
    return f"({', '.join(map(_number, values))})"


def _plain(name: object) -> str:
    """A name of a file as it may stand in a docstring, which it must not end."""
    return re.sub(r"[^\w./ -]", "_", str(name))


def _quoted(name: str) -> str:
    """A name of the model's as a string of Python, whatever is in it."""
    return json.dumps(name)


def _number(value: float) -> str:
    return f"{value + 0.0:.4g}"
