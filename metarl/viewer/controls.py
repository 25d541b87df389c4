"""The panel by which one interferes: what it shows follows the player, what is done to it becomes an order."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable
from typing import Any

import viser

from metarl.core.distributions import Angle, Ball, Choice, Disc, Distribution, LogUniform, Points, Uniform
from metarl.core.tasks import Parameter, TaskSpace, Value
from metarl.viewer.hand import MOST_LATENCY, WAYS, Hand

_GROUNDS = {"as the task says": 1.0, "wet": 0.5, "icy": 0.15, "sticky": 1.5}
_PUSHES = {"←": (0.0, 1.0), "↑": (1.0, 0.0), "↓": (-1.0, 0.0), "→": (0.0, -1.0)}
_PUSH = 0.8  # [m/s] at first
_HELD = 0.6  # [s] a control stays as it was set, while what it asks for is on its way
SOUND = "none"


class Field:
    """A control whose value follows the simulation, unless someone has just changed it on the page."""

    def __init__(
        self, handle: Any, read: Callable[[Any], Any], write: Callable[[Any], Any] = lambda value: value
    ) -> None:
        self.handle, self._read, self._write = handle, read, write
        self._touched = -math.inf

    def on_change(self, order: Callable[[Any], None]) -> None:
        """Have `order` called with what is set on the page, and not with what `show` shows.

        At once, in the thread that hears of it: `show` would undo what is set while its order waits for another one.
        """

        @self.handle.on_update  # type: ignore[untyped-decorator]
        async def _(event: Any) -> None:
            if event.client is not None:
                self._touched = time.monotonic()
                order(self._read(event.target.value))

    def show(self, value: Any) -> None:
        """Show a value."""
        wanted = self._write(value)
        if self.handle.value != wanted and time.monotonic() - self._touched > _HELD:
            self.handle.value = wanted


class TaskPanel:
    """A control for each task parameter, in its range, with what lies beyond training marked."""

    def __init__(self, gui: viser.GuiApi, space: TaskSpace, change: Callable[[str, Value], None]) -> None:
        self._fields: dict[str, list[Field]] = {}
        self._values: dict[str, Value] = {}
        self._change = change
        self._notes: dict[str, Any] = {}
        self._space = space
        nominal = space.nominal().rows()[0]
        for name, parameter in space.parameters.items():
            value = nominal[name]
            size = len(value) if isinstance(value, list) else 0
            fields = [self._field(gui, name, parameter, i if size else None, value) for i in range(size or 1)]
            self._fields[name] = [field for field in fields if field is not None]
            self._notes[name] = gui.add_html("", visible=False)

    def _field(self, gui: viser.GuiApi, name: str, parameter: Parameter, i: int | None, value: Value) -> Field | None:
        unit = f" [{parameter.unit}]" if parameter.unit not in ("1", "index") else ""
        label = name + unit if i is None else f"{name} {i + 1}{unit}"
        start = value[i] if isinstance(value, list) and i is not None else value
        assert not isinstance(start, list)
        options = menu(parameter)
        if options:
            names = {text: number for text, number in options}
            back = {number: text for text, number in options}
            first = back.get(start, options[0][0])
            handle: Any = gui.add_dropdown(label, tuple(names), initial_value=first, hint=parameter.help or None)
            field = Field(handle, names.__getitem__, lambda number: _nearest(back, number))
        else:
            low, high = reach(parameter)
            step = _step(high - low)
            more: dict[str, Any] = {"marks": marks(parameter), "hint": parameter.help or None}
            handle = gui.add_slider(
                label, min=low, max=high, step=step, initial_value=min(max(start, low), high), **more
            )
            field = Field(handle, float, lambda number: min(max(number, low), high))
        field.on_change(lambda new: self._set(name, i, new))
        return field

    def _set(self, name: str, i: int | None, new: float) -> None:
        value = self._values.get(name, self._space.nominal().rows()[0][name])
        value = [*value[:i], new, *value[i + 1 :]] if i is not None and isinstance(value, list) else new
        self._values[name] = value
        self._change(name, value)

    def show(self, task: dict[str, Value]) -> None:
        """Show a task."""
        self._values = dict(task)
        for name, value in task.items():
            for field, number in zip(self._fields[name], value if isinstance(value, list) else [value], strict=True):
                field.show(number)
            parameter = self._space.parameters[name]
            beyond = not (parameter.train.contains(value) or value == parameter.nominal)
            note = self._notes[name]
            if beyond != note.visible:
                words = f"⚠ {name} is beyond its training range: {parameter.train.describe()}"
                note.content = f'<div style="padding:0 .75em .4em;font-size:.85em">{html.escape(words)}</div>'
                note.visible = beyond


def _nearest(back: dict[float, str], number: float) -> str:
    return back[min(back, key=lambda own: abs(own - number))]


def menu(parameter: Parameter) -> list[tuple[str, float]]:
    """Names and values of a parameter that has finitely many; those of `ood` alone are marked. Empty for a range."""
    supports = [parameter.train] + ([parameter.ood] if parameter.ood is not None else [])
    if not all(isinstance(support, Choice) for support in supports):
        return []
    train = list(parameter.train.values)  # type: ignore[attr-defined]
    beyond = [value for value in supports[-1].values if value not in train]  # type: ignore[attr-defined]
    nominal = [parameter.nominal] if isinstance(parameter.nominal, int | float) else []
    values = list(dict.fromkeys([*(value for value in nominal if value not in beyond), *train, *beyond]))
    return [
        (f"{parameter.label(value) or f'{value:g}'}{'  (beyond training)' if value in beyond else ''}", float(value))
        for value in sorted(values)
    ]


def reach(parameter: Parameter) -> tuple[float, float]:
    """Lowest and highest value that is offered: in training, beyond it, or of the robot as it was built."""
    ends = [end for support in (parameter.train, parameter.ood) if support is not None for end in ends_of(support)]
    nominal = parameter.nominal if isinstance(parameter.nominal, list) else [parameter.nominal]
    ends += [float(value) for value in nominal if value is not None]
    return min(ends), max(ends)


def ends_of(support: Distribution) -> tuple[float, float]:
    """Lowest and highest number of a distribution."""
    match support:
        case Uniform(low=low, high=high) | LogUniform(low=low, high=high) | Angle(low=low, high=high):
            return low, high
        case Disc(radius=radius) | Ball(radius=radius):
            return -radius, radius
        case Choice(values=values):
            return min(values), max(values)
        case Points(values=points):
            return min(map(min, points)), max(map(max, points))
    return 0.0, 1.0


def marks(parameter: Parameter) -> tuple[tuple[float, str], ...]:
    """The ends of the trained range, and where a parameter goes on beyond it."""
    low, high = ends_of(parameter.train)
    found = [(low, f"{low:.3g}"), (high, f"{high:.3g}")]
    if parameter.ood is not None:
        own_low, own_high = ends_of(parameter.ood)
        found += [(own_high, "ood")] if own_high > high else []
        found += [(own_low, "ood")] if own_low < low else []
    return tuple(sorted(found))


def _step(span: float) -> float:
    return float(10.0 ** math.floor(math.log10(max(span, 1e-9)))) / 100.0


class HandPanel:
    """What one does to the robots beside their task."""

    def __init__(
        self, gui: viser.GuiApi, hand: Hand, grip: Callable[..., None], push: Callable[[float, float], None]
    ) -> None:
        self._fields: dict[str, Field] = {}
        if hand.motors:
            broken = gui.add_dropdown("break motor", (SOUND, *hand.motors), initial_value=SOUND)
            way = gui.add_dropdown("how", WAYS, initial_value=WAYS[0])
            self._add(
                "motor",
                Field(
                    broken,
                    lambda name: hand.motors.index(name) if name != SOUND else -1,
                    lambda i: hand.motors[i] if i >= 0 else SOUND,
                ),
                grip,
            )
            self._add("way", Field(way, WAYS.index, WAYS.__getitem__), grip)
        if hand.loads:
            most = float(f"{max(0.6 * hand.weight, 0.1):.1g}")
            load = gui.add_slider("payload [kg]", min=0.0, max=most, step=most / 100, initial_value=0.0)
            self._add("payload", Field(load, float), grip)
        grounds = {value: name for name, value in _GROUNDS.items()}
        ground = gui.add_dropdown("ground", tuple(_GROUNDS), initial_value="as the task says")
        self._add(
            "friction", Field(ground, _GROUNDS.__getitem__, lambda value: grounds.get(value, "as the task says")), grip
        )
        if hand.delays:
            late = gui.add_slider("latency [ms]", min=0.0, max=1000 * MOST_LATENCY, step=2.0, initial_value=0.0)
            self._add("latency", Field(late, lambda value: value / 1000, lambda value: 1000 * value), grip)
        strength = gui.add_slider("push by [m/s]", min=0.2, max=3.0, step=0.1, initial_value=_PUSH)
        buttons = gui.add_button_group("push", tuple(_PUSHES))

        @buttons.on_click
        def _(event: Any) -> None:
            ahead, left = _PUSHES[event.target.value]
            push(ahead * strength.value, left * strength.value)

        @gui.add_button("all as built", hint="motors sound, no payload, no latency").on_click
        def _(event: Any) -> None:
            grip(motor=-1, way=0, payload=0.0, friction=1.0, latency=0.0)

    def _add(self, name: str, field: Field, grip: Callable[..., None]) -> None:
        field.on_change(lambda value: grip(**{name: value}))
        self._fields[name] = field

    def show(self, grip: Any) -> None:
        """Show what is done at present."""
        for name, field in self._fields.items():
            field.show(getattr(grip, name))
