"""Importing the library is quick, silent, opens no device and drags in nothing heavy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# absl.flags is not among them: flax loads it itself. The floors test keeps it out of our sources.
FORBIDDEN = (
    "experiments",
    "matplotlib",
    "ml_collections",
    "sklearn",
    "tensorflow",
    "tensorflow_probability",
    "torch",
)
DEPENDENCIES = [
    "jax.numpy",
    "flax.linen",
    "jaxtyping",
    "optax",
    "orbax.checkpoint",
    "scipy.sparse.csgraph",
    "scipy.stats",
    "tqdm",
]
MAX_SECONDS = 1.5

# Writes its findings to a file, because stdout and stderr must stay empty.
SCRIPT = """
import importlib, json, sys, time
modules, forbidden, report = json.loads(sys.argv[1])
found = []
for module in modules:
    start = time.process_time()
    importlib.import_module(module)
    seconds = time.process_time() - start
    found.append([module, seconds, [name for name in forbidden if name in sys.modules]])
with open(report, "w") as file:
    json.dump(found, file)
"""


def public_modules() -> list[str]:
    paths = sorted((ROOT / "gasn_jax").rglob("*.py"))
    names = [path.relative_to(ROOT).with_suffix("").parts for path in paths]
    return [".".join(name).removesuffix(".__init__") for name in names]


def import_in_a_new_process(modules: list[str], report: Path) -> list:
    # With a platform that does not exist, whatever asks for a device raises.
    environment = os.environ | {"JAX_PLATFORMS": "no_such_platform", "PYTHONPATH": str(ROOT)}
    arguments = json.dumps([modules, FORBIDDEN, str(report)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, arguments],
        env=environment,
        cwd=report.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0 and not output, f"importing {modules}:\n{output}"
    return json.loads(report.read_text())


def test_what_a_user_imports_is_quick_and_silent(tmp_path):
    """In a new process, jax's own import included."""
    modules = ["gasn_jax", "gasn_jax.structured.chain"]
    found = import_in_a_new_process(modules, tmp_path / "report.json")
    assert sum(seconds for _, seconds, _ in found) < MAX_SECONDS
    assert [heavy for _, _, heavy in found] == [[], []]


def test_all_public_modules_are_quick_silent_and_light(tmp_path):
    """All of them together, once what they depend on is there."""
    modules = public_modules()
    assert {"gasn_jax.evaluation.samples", "gasn_jax.systems.gasn"} <= set(modules)
    found = import_in_a_new_process([*DEPENDENCIES, *modules], tmp_path / "report.json")
    own = found[len(DEPENDENCIES) :]
    assert [(module, heavy) for module, _, heavy in own] == [(module, []) for module in modules]
    assert sum(seconds for _, seconds, _ in own) < MAX_SECONDS


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("print('hello')", "hello"),
        ("import warnings\nwarnings.warn('old')", "old"),
        ("import jax.numpy as jnp\nZERO = jnp.zeros(())", "no_such_platform"),
    ],
)
def test_a_bad_module_is_caught(tmp_path, text, complaint):
    (tmp_path / "bad_module.py").write_text(text)
    with pytest.raises(AssertionError, match=complaint):
        import_in_a_new_process(["bad_module"], tmp_path / "report.json")
