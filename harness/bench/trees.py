"""Commits as folders: a temporary git worktree each, which is removed in the end."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import CallError


@dataclass(frozen=True)
class Tree:
    """Where a side finds its model: `folders` come first on its path, and it works in `cwd`.

    Of a commit, `checkout` is the repository whose own files must not be used instead.
    """

    folders: tuple[Path, ...]
    cwd: Path
    commit: str = ""
    checkout: str = ""


def here() -> Tree:
    """The working folder as it is."""
    return Tree((Path.cwd(),), Path.cwd())


@contextmanager
def trees(commits: Sequence[str]) -> Iterator[tuple[Tree, ...]]:
    """A tree for each commit of the repository around the working folder. CallError where git says no."""
    root = Path(_git("rev-parse", "--show-toplevel"))
    below = Path.cwd().resolve().relative_to(root.resolve())
    hashes = [_git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", wrong=name) for name in commits]
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as above:
        made = [Path(above) / f"{i}-{commit[:12]}" for i, commit in enumerate(hashes)]
        try:
            for path, commit in zip(made, hashes, strict=True):
                _git("worktree", "add", "--quiet", "--detach", str(path), commit)
            yield tuple(_tree(path, below, commit, root) for path, commit in zip(made, hashes, strict=True))
        finally:
            for path in made:
                _git("worktree", "remove", "--force", str(path), must=False)


def _tree(path: Path, below: Path, commit: str, root: Path) -> Tree:
    """The working folder of the commit, its top, and `src` where it has one, as editable installs have it."""
    cwd = path / below
    if not cwd.is_dir():
        raise CallError(f"commit {commit[:12]} has no folder {below}: call this from one that both commits have")
    folders = dict.fromkeys([cwd, path, *([path / "src"] if (path / "src").is_dir() else [])])
    return Tree(tuple(folders), cwd, commit, str(root))


def _git(*arguments: str, wrong: str = "", must: bool = True) -> str:
    """What git prints; CallError in one line where it fails and must not."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # in a hook, say
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        raise CallError("--commits needs git, which is not installed") from None
    if done.returncode != 0 and must:
        said = done.stderr.strip().splitlines()[-1:] or [f"no commit is called {wrong}" if wrong else "git failed"]
        raise CallError(f"--commits: {said[0].removeprefix('fatal: ')}")
    return done.stdout.strip()
