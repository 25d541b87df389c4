"""A page in the browser on which robots adapt as one watches, and interferes: `metarl.view`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metarl.core.errors import UserError

if TYPE_CHECKING:
    from metarl.core.tasks import Split
    from metarl.run.run import Run
    from metarl.viewer.page import Viewer


def view(
    source: Run | str | Path,
    beside: Sequence[Run | str | Path] = (),
    *,
    num_worlds: int = 1,
    split: Split = "test",
    seed: int = 0,
    host: str = "127.0.0.1",
    port: int = 8080,
    plain: bool = False,
    trust_code: bool = False,
) -> Viewer:
    """Show robots that adapt on a page in a browser, and go on: they move until the viewer is closed.

    Args:
        source: A run, its folder, `pretrained:NAME`, or the name of a family that MuJoCo simulates.
        beside: More runs of the family, whose policies can be switched to.
        num_worlds: Robots at once, each on a task of its own.
        split: Tasks of this split's fixed list, one after the other.
        seed: Seed of the initial states; with that of an evaluation the first tasks begin as they did there.
        host: Address of the page; a warning says so where others than this machine can reach it.
        port: Its port, or the first free one after it; 0 for any.
        plain: No shadows, for a browser without a graphics processor.
        trust_code: Files of code that the run names may run, also such as this user never trained with.

    Returns:
        The viewer: `url`, `close()`, `wait()`; a notebook shows it in place, and a `with` closes it.

    Raises:
        UserError: There is no such run or family, it has no policy yet, or the extra `view` is not installed.
    """
    from metarl.rl.parallel import single_threaded_math
    from metarl.viewer.choices import seen

    single_threaded_math()
    shown = seen(source, beside, trust_code)
    try:
        from metarl.viewer.page import Viewer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("viser", "mjviser", "trimesh", "websockets"):
            raise
        raise UserError("a view needs the packages viser and mjviser: pip install viser mjviser") from None
    return Viewer(shown, num_worlds=num_worlds, split=split, seed=seed, host=host, port=port, plain=plain)
