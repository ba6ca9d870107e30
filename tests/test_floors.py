"""The import rules: a floor imports only from below, and heavy modules stay out or are lazy."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "gasn_jax"
FLOORS = {
    "checks": 0,
    "numerics": 0,
    "structured": 1,
    "energy": 1,
    "learning": 1,
    "evaluation": 1,
    "data": 1,
    "nn": 2,
    "systems": 3,
    "training": 3,
}
APART = {("systems", "training"), ("training", "systems")}
# Heavy or command-line modules, and the one part of the package that may import each, lazily.
RESTRICTED = {
    "absl.app": None,
    "absl.flags": None,
    "experiments": None,
    "matplotlib": "training",
    "ml_collections": None,
    "sklearn": "data",
    "PIL": "data",
    "tensorflow": None,
    "tensorflow_probability": None,
    "tests": None,
    "torch": None,
}
# Loading these runs whatever code the file holds.
PICKLES = ("cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve")


class Import(NamedTuple):
    line: int
    target: str  # dotted name; of `from a import b` it is a.b
    lazy: bool  # inside a function


def imports_of(
    tree: ast.AST, module: str, is_package: bool, lazy: bool = False
) -> Iterator[Import]:
    """All imports of a module, also literal import_module("name") and __import__("name")."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".") + ([""] if is_package else [])
                base = ".".join([*parents[: -node.level], *base.split(".")]).strip(".")
            for alias in node.names:
                yield Import(node.lineno, f"{base}.{alias.name}", lazy)
        elif isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else None
            name = node.func.id if isinstance(node.func, ast.Name) else name
            argument = node.args[0]
            if name in ("import_module", "__import__") and isinstance(argument, ast.Constant):
                yield Import(node.lineno, str(argument.value), lazy)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports_of(node, module, is_package, lazy or inside)


def covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def pickle_violations(where: str, tree: ast.AST, imports: list[Import]) -> Iterator[str]:
    for line, target, _ in imports:
        if any(covers(banned, target) for banned in PICKLES):
            yield f"{where}:{line}: imports {target}"
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield f"{where}:{node.value.lineno}: allow_pickle must be False"


def import_violations(where: str, unit: str | None, imports: list[Import]) -> Iterator[str]:
    """Rules on single imports of one part of the package; `unit` None is the package itself."""
    for line, target, lazy in imports:
        place = f"{where}:{line}"
        for name, place_allowed in RESTRICTED.items():
            if covers(name, target):
                if unit is None or unit != place_allowed:
                    yield f"{place}: {target} must stay out of {unit or PACKAGE}"
                elif not lazy:
                    yield f"{place}: {target} must be imported lazily, inside a function"
                break
        else:
            if lazy:
                yield f"{place}: {target} is imported inside a function"
        if not covers(PACKAGE, target):
            continue
        imported = (target.split(".") + [""])[1]
        if unit is None:
            yield f"{place}: the package itself must import none of its parts, but {target}"
        elif imported in FLOORS and FLOORS[imported] > FLOORS[unit]:
            yield f"{place}: {unit} is below {imported}"
        elif (unit, imported) in APART:
            yield f"{place}: {unit} and {imported} must not import each other"


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return ["circle of imports: " + " <- ".join(error.args[1])]
    return []


def violations(root: Path) -> list[str]:
    """Every breach of the rules in the source tree under `root`, a line each."""
    found = []
    modules: dict[str, list[Import]] = {}
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] not in (PACKAGE, "experiments", "tests"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        is_package = path.name == "__init__.py"
        names = relative.parts[:-1] if is_package else relative.with_suffix("").parts
        module = ".".join(names)
        imports = list(imports_of(tree, module, is_package))
        found += pickle_violations(str(relative), tree, imports)
        if names[0] != PACKAGE:
            continue
        unit = names[1] if len(names) > 1 else None
        if unit is not None and unit not in FLOORS:
            found.append(f"{relative}: {unit} has no floor; give it one in FLOORS")
            continue
        found += import_violations(str(relative), unit, imports)
        modules[module] = imports
    files: dict[str, set[str]] = {}
    parts: dict[str, set[str]] = {}
    for module, imports in modules.items():
        # `from a import b` depends on the module a.b where there is one, else on a
        targets = {t if t in modules else t.rpartition(".")[0] for _, t, _ in imports}
        files[module] = {t for t in targets if t in modules} - {module}
        part = ".".join(module.split(".")[:2])
        others = {".".join(t.split(".")[:2]) for t in files[module]} - {part}
        parts.setdefault(part, set()).update(others)
    return found + (circle(files) or circle(parts))


def test_the_source_tree_keeps_the_rules():
    assert violations(ROOT) == []


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"gasn_jax/numerics.py": "from gasn_jax.structured import chain"}, "is below structured"),
        ({"gasn_jax/structured/chain.py": "import gasn_jax.nn.shells"}, "is below nn"),
        ({"gasn_jax/nn/a.py": "from ..systems import gasn"}, "is below systems"),
        ({"gasn_jax/nn/__init__.py": "from ..training import loop"}, "is below training"),
        ({"gasn_jax/systems/a.py": "from gasn_jax import training"}, "not import each other"),
        ({"gasn_jax/training/a.py": "import gasn_jax.systems"}, "not import each other"),
        ({"gasn_jax/__init__.py": "from gasn_jax import numerics"}, "none of its parts"),
        ({"gasn_jax/misc.py": ""}, "has no floor"),
        ({"gasn_jax/systems/a.py": "import experiments.gasn"}, "must stay out"),
        ({"gasn_jax/systems/a.py": "from absl import flags"}, "absl.flags must stay out"),
        ({"gasn_jax/training/a.py": "import ml_collections"}, "must stay out"),
        ({"gasn_jax/training/a.py": "import matplotlib.pyplot"}, "must be imported lazily"),
        ({"gasn_jax/nn/a.py": "def f():\n    import matplotlib"}, "must stay out of nn"),
        ({"gasn_jax/data/a.py": "from sklearn import datasets"}, "must be imported lazily"),
        ({"gasn_jax/learning/a.py": "def f():\n    import torch"}, "must stay out"),
        ({"gasn_jax/numerics.py": "f = __import__('tensorflow')"}, "must stay out"),
        ({"gasn_jax/numerics.py": "import_module('torch.nn')"}, "must stay out"),
        ({"gasn_jax/nn/a.py": "class A:\n  def f(self):\n    import jax"}, "inside a function"),
        ({"gasn_jax/data/a.py": "import pickle"}, "imports pickle"),
        ({"experiments/a.py": "from pickle import load"}, "imports pickle.load"),
        ({"tests/test_a.py": "np.load(f, allow_pickle=True)"}, "allow_pickle must be False"),
        ({"gasn_jax/data/a.py": "np.load(f, allow_pickle=flag)"}, "allow_pickle must be False"),
        (
            {
                "gasn_jax/structured/a.py": "from gasn_jax.structured import b",
                "gasn_jax/structured/b.py": "from gasn_jax.structured.a import f",
            },
            "circle of imports",
        ),
        (
            {
                "gasn_jax/structured/a.py": "from gasn_jax.energy import c",
                "gasn_jax/energy/b.py": "from gasn_jax.structured import d",
                "gasn_jax/energy/c.py": "",
                "gasn_jax/structured/d.py": "",
            },
            "circle of imports",
        ),
    ],
)
def test_a_bad_tree_is_caught(tmp_path, files, expected):
    found = violations(write_tree(tmp_path, files))
    assert len(found) == 1 and expected in found[0], found


def test_a_good_tree_is_let_pass(tmp_path):
    files = {
        "gasn_jax/__init__.py": "__version__ = '1'",
        "gasn_jax/numerics.py": "import jax",
        "gasn_jax/structured/__init__.py": "",
        "gasn_jax/structured/chain.py": "from gasn_jax import numerics",
        "gasn_jax/structured/tree.py": "from gasn_jax.structured import chain",
        "gasn_jax/evaluation/a.py": "from gasn_jax.structured.chain import f",
        "gasn_jax/data/digits.py": "def load():\n    from sklearn import datasets",
        "gasn_jax/training/plots.py": "def draw():\n    import matplotlib.pyplot as plt",
        "gasn_jax/training/run.py": "from gasn_jax import __version__\nfrom absl import logging",
        "gasn_jax/systems/gasn.py": "from gasn_jax.nn import shells",
        "gasn_jax/nn/shells.py": "import numpy as np\nnp.load('f', allow_pickle=False)",
        "experiments/gasn.py": "from absl import flags\nfrom gasn_jax.systems import gasn",
    }
    assert violations(write_tree(tmp_path, files)) == []
