"""A user's own file: families whose environments have a simulator of their own, in `carts.py`."""

from metarl.core.tasks import Parameter, TaskSpace, Uniform
from metarl.sim.external.external_env import ExternalFamily


class CartGoal(ExternalFamily):
    """Bring a cart to an unknown place."""

    space = TaskSpace(
        {"goal": Parameter(Uniform(-0.5, 0.5), unit="m", ood=Uniform(0.6, 0.8), nominal=0.25, help="where to")}
    )
    control_step, episode_steps = 0.1, 6
    environment = "carts.py:Cart"


class Doomed(CartGoal):
    environment = "carts.py:LateKilled"


class Indifferent(CartGoal):
    environment = "carts.py:Deaf"


class Unrepeatable(CartGoal):
    environment = "carts.py:Unseeded"


class Invisible(CartGoal):
    environment = "carts.py:Shy"


class Told(CartGoal):
    environment = "carts.py:Blabbing"


class ToldLater(CartGoal):
    environment = "carts.py:BlabbingLater"


class PendulumMass(ExternalFamily):
    """Hold a pendulum of unknown mass upright."""

    space = TaskSpace({"mass": Parameter(Uniform(0.5, 2.0), unit="kg", nominal=1.0)})
    control_step, episode_steps = 0.05, 10
    environment = "carts.py:Pendulum"


def family(environment, **fields):
    """A `CartGoal` with another environment."""
    return type(environment, (CartGoal,), {"environment": environment, "__module__": __name__, **fields})()
