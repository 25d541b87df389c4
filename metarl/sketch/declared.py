"""What a new family declares: the ranges of its task parameters, what they vary, what disturbs it, what it observes."""

from __future__ import annotations

from metarl.sketch.robot import Robot


def parameters(robot: Robot) -> dict[str, str]:
    """Each with its ranges, in the order in which they are declared."""
    own = {"free": {"speed", "payload"}, "rail": {"speed", "mass"}, "fixed": {"goal", "mass"}}[robot.kind]
    own |= {"friction", "strength"} | ({"damping"} if robot.servos else set())
    speed, load, span = robot.speed, 0.2 * robot.mass, 0.3 * span_of(robot)
    near, far = decimal(span), decimal(1.4 * span)
    about = {
        "goal": f'Parameter(Ball({near}), ood=Ball({far}, {near}), unit="m", help="from the tip at home")',
        "speed": _varied("Uniform", 0.0, speed, 1.4 * speed, "m/s"),
        "payload": _varied("Uniform", 0.0, load, 1.6 * load, "kg", "nominal=0.0"),
        "mass": _varied("LogUniform", 0.7, 1.5, 2.0, "1", "nominal=1.0"),
        "friction": 'Parameter(Uniform(0.5, 1.25), ood=Uniform(0.3, 0.5), unit="1", nominal=1.0)',
        "strength": 'Parameter(Uniform(0.8, 1.1), ood=Uniform(0.6, 0.8), unit="1", nominal=1.0)',
        "damping": _varied("Uniform", 0.7, 1.3, 1.6, "1", "nominal=1.0", 'help="D"'),
    }
    return {name: line for name, line in about.items() if name in own}


def _varied(kind: str, low: float, high: float, beyond: float, unit: str, *words: str) -> str:
    """A parameter whose ood range lies above that of training."""
    a, b, c = map(decimal, (low, high, beyond))
    given = (f"{kind}({a}, {b})", f"ood=Uniform({b}, {c})", f'unit="{unit}"', *words)
    return f"Parameter({', '.join(given)})"


def variations(robot: Robot) -> dict[str, str]:
    """How each parameter changes the model."""
    return {
        "goal": 'SitePosition("goal", "goal")',
        "payload": f'Payload("payload", BASE, at=(0.0, 0.0, {0.15 * robot.place[2]:.1g}))',
        "mass": 'BodyMass("mass")',
        "friction": 'Friction("friction")',
        "strength": f'MotorStrength("strength"{", tuple(SERVOS)" if robot.servos and robot.kept else ""})',
        "damping": f'ServoGain("damping", "D"{", tuple(SERVOS)" if robot.kept else ""})',
    }


def disturbances(robot: Robot) -> list[str]:
    """What a real robot of its kind adds."""
    free = robot.kind == "free"
    return [
        f"ActionLatency(Uniform(0.0, {robot.control_step:g}))",
        *(['Sensor("gyro", noise=0.1)', 'Sensor("gravity", noise=0.02)'] if free else []),
        *(['Sensor("joint_position", noise=0.01)', 'Sensor("joint_velocity", noise=0.2)'] if robot.joints else []),
        *([f"Kick(Uniform(0.0, {0.3 * robot.speed:.1g}), every=Uniform(2.0, 4.0))"] if free else []),
    ]


def parts(robot: Robot) -> list[str]:
    """What its sensors tell."""
    names = ", JOINTS" if len(robot.rates) == len(robot.joints) else ""
    base = ['Part("gyro", 3, "rad/s")', 'Part("gravity", 3, "1", help="its direction in the base\'s frame")']
    joints = [
        f'Part("joint_position", {len(robot.joints)}, "rad", JOINTS)',
        f'Part("joint_velocity", {len(robot.rates)}, "rad/s"{names})',
    ]
    actions = f'Part("previous_action", {len(robot.servos) + len(robot.kept)}, "1")'
    return [*(base if robot.kind == "free" else []), *(joints if robot.joints else []), actions]


def span_of(robot: Robot) -> float:
    """How far a fixed robot reaches, or about so [m]."""
    return max(0.1, robot.reach)


def decimal(value: float) -> str:
    """Two digits of a number that stands for itself."""
    return repr(float(f"{value:.2g}"))
