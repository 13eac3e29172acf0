"""The files of suites/pr_gate in a repository that is made for it: green with a right model, red with a wrong one."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

GATE = Path(__file__).parents[2] / "suites" / "pr_gate"
FLOW = '''
import torch

class Flow:
    """x = b + s * e with e standard normal."""

    b, s = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 2.5])

    def sample(self, n, *, generator):
        return self.b + self.s * torch.randn(n, 2, generator=generator)

    def log_prob(self, x):
        e = (x - self.b) / self.s
        return torch.distributions.Normal(0.0, 1.0).log_prob(e).sum(-1) - self.s.log().sum()
'''
WRONG = FLOW.replace("- self.s.log()", "+ self.s.log()")


@pytest.fixture(params=[(FLOW, 0), (WRONG, 1)], ids=["right", "wrong"])
def repository(request, tmp_path):
    """A repository of a model's author with the files of the gate, and the exit status that is due."""
    text, status = request.param
    (tmp_path / "flow.py").write_text(text)
    (table,) = re.findall(r"```toml\n(.*?)```", (GATE / "README.md").read_text(), re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(table)
    shutil.copy(GATE / "test_conforms.py", tmp_path)
    (tmp_path / ".github" / "workflows").mkdir(parents=True)
    shutil.copy(GATE / "workflow.yml", tmp_path / ".github" / "workflows" / "conforms.yml")
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path, status


def run(folder, *command):
    """As in a fresh job: in the repository, with the interpreter of this environment, and without its settings."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    env |= {"PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def test_the_test_file_is_red_with_a_wrong_model_only(repository):
    folder, status = repository
    ended = run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert ("test_conforms.py::test_conforms" in ended.stdout) == bool(status)
    assert ("passed" in ended.stdout) or status


def test_the_steps_of_the_workflow_are_red_with_a_wrong_model_only(repository):
    folder, status = repository
    workflow = yaml.safe_load((folder / ".github" / "workflows" / "conforms.yml").read_text())
    steps = [step["run"] for step in workflow["jobs"]["conforms"]["steps"] if "run" in step]
    ours = [step for step in steps if not step.startswith("pip ")]
    assert len(ours) == len(steps) - 1 == 1
    ended = run(folder, "bash", "-e", "-c", ours[0])
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert ("harness check flow.py:Flow --only" in ended.stdout) == bool(status)
    assert {"conforms.xml", "conforms.html"} <= {file.name for file in folder.iterdir()}


def test_the_readme_shows_the_test_as_it_is():
    shown = re.findall(r"```python\n(.*?)```", (GATE / "README.md").read_text(), re.DOTALL)
    assert all(text in (GATE / "test_conforms.py").read_text() for text in shown)
    assert len(shown) == 1
