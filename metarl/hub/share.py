"""`metarl push` and `metarl pull`: the Hugging Face Hub, or a server that speaks as it does (`HF_ENDPOINT`)."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError
from metarl.hub.package import write_package
from metarl.run.run import Run

MOST_BYTES = 256 * 2**20
"""No file that is fetched is larger."""
MOST_FILES = 64
_OURS = re.compile(
    r"README\.md|config\.toml|(run|policy|family)\.json|adaptation\.(svg|webp)|eval/[\w.-]+\.json"
    r"|checkpoints/iteration-\d{6}/(manifest\.json|tensors\.safetensors)|bundle/\w+\.(json|safetensors|h|onnx)"
)
"""What a shared policy consists of. Whatever else lies in a repository is left there."""
_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


def push(
    run: Run | str | Path,
    repo: str,
    *,
    checkpoint: str | None = None,
    private: bool = False,
    film: bool = True,
    trust_code: bool = False,
    say: Callable[[object], None] | None = None,
) -> str:
    """Publish a trained policy on the Hugging Face Hub, with a model card. Nothing is ever published by default.

    What leaves the machine: the policy's weights and configuration, its bundle, its evaluation on 100 test tasks, the
    adaptation curve and a film; names of files in place of their paths. A family of your own stays with you: who pulls
    the policy needs its file to evaluate it. You are who `hf auth login` or `HF_TOKEN` says.

    Args:
        run: A run, its folder, or `pretrained:NAME`.
        repo: `USER/NAME` of the repository, which is made where there is none.
        checkpoint: `iteration-000120`, or `best`; the newest by default.
        private: Make the repository for your eyes only.
        film: Film the policy on one test task.
        trust_code: Files of code that the run names may run, also such as this user never trained with.
        say: Called with what could not be made, as `print`.

    Returns:
        The address of the repository.

    Raises:
        UserError: The name is none, the package is not installed, or the Hub refuses.
    """
    api, errors = _client(repo)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "policy"
        for sentence in write_package(Run.open(run, trust_code), target, repo, checkpoint=checkpoint, film=film):
            (say or (lambda what: None))(sentence)
        try:
            address = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=target, commit_message="A policy of metarl")
        except errors as error:
            raise _refused("published", repo, error) from None
    return str(address)


def pull(repo: str, output: str | Path | None = None, *, revision: str = "main") -> Run:
    """Fetch a shared policy as a run's folder, which `evaluate`, `record` and `load` take. Nothing of it is run.

    Only files of the kinds that `push` writes are fetched, none larger than 256 MiB.

    Args:
        repo: `USER/NAME` of the repository.
        output: The folder, which must not exist; `runs/NAME` by default.
        revision: A branch, tag or commit.

    Raises:
        UserError: There is no such repository, it holds no policy of metarl, or the folder exists.
    """
    api, errors = _client(repo)
    target = Path("runs") / repo.rpartition("/")[2] if output is None else Path(output)
    if os.path.lexists(target):
        raise UserError(f"{target} exists already: name a new folder by --output")
    try:
        tree = list(api.list_repo_tree(repo, recursive=True, revision=revision))
    except errors as error:
        raise _refused("fetched", repo, error) from None
    sizes = {entry.path: entry.size for entry in tree if hasattr(entry, "size") and _OURS.fullmatch(entry.path)}
    if not {"config.toml", "policy.json"} <= set(sizes) or len(sizes) > MOST_FILES:
        raise UserError(
            f"{repo} holds no policy of metarl: it has no config.toml and policy.json as `metarl push` writes"
        )
    if large := [name for name, size in sizes.items() if not 0 <= size <= MOST_BYTES]:
        raise UserError(f"{repo} is not fetched: its {large[0]} is larger than {MOST_BYTES >> 20} MiB")
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name in sorted(sizes):
            api.hf_hub_download(repo, name, revision=revision, local_dir=place)
        shutil.rmtree(place / ".cache", ignore_errors=True)  # the client's own notes
        Run.open(place).info  # noqa: B018 (it is read, and refused where it is damaged)
        os.chmod(place, 0o755)
        os.rename(place, target)
    except errors as error:
        raise _refused("fetched", repo, error) from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return Run.open(target)


def _client(repo: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """The Hub's client, and what it raises."""
    if not _REPO.fullmatch(repo):
        raise UserError(f"'{repo}' is no name of a repository: it is USER/NAME, of letters, digits, '.', '_' and '-'")
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    except ModuleNotFoundError:
        raise UserError("sharing needs huggingface-hub: pip install 'metarl-robotics[hub]'") from None
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="metarl")
    return api, (HfHubHTTPError, LocalTokenNotFoundError, OSError, ValueError)


def _refused(what: str, repo: str, error: Exception) -> UserError:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return UserError(f"{repo} cannot be {what}: {said}")
