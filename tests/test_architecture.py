"""The plan of the house, held by reading the syntax trees: who may import whom, and what no room may do."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lstm_np

PACKAGE = Path(lstm_np.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# A room imports only rooms on its own floor (itself) or below.  The longest matching prefix counts.
FLOORS = {
    "streams": 0,
    "cells": 0,
    "backends": 0,
    "kernels": 1,
    "layers": 2,
    "losses": 2,
    "optimizers": 2,
    "initializers": 2,
    "weights": 2,
    "loop": 2,
    "data": 2,
    "model": 3,
    "certificate": 4,
    "training": 4,
    "explain": 5,
    "interop": 5,
    "train": 6,
    "evaluate": 6,
    "predict": 6,
    "gradcheck": 6,
    "recipes": 6,
}
# rooms of one floor that lean on each other, in this direction only
SAME_FLOOR = {
    ("layers", "initializers"),
    ("optimizers", "layers"),
    ("training", "certificate"),
}
NAMESPACE_FREE = ("cells/", "layers/", "kernels/reference.py", "losses.py", "optimizers.py")


def room_of(name: str) -> str:
    """ "kernels/reference.py" -> "kernels"; "model.py" -> "model"."""
    return name.split("/")[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, int]]:
    """Every absolute module name that a file imports, at the top or inside a function, with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


@pytest.mark.parametrize("name", [name for name in FILES if name != "__init__.py"])
def test_a_room_imports_only_rooms_below(name):
    room = room_of(name)
    assert room in FLOORS, f"{name} stands on no floor: add its room to FLOORS and to docs/architecture.md"
    for module, line in imports(FILES[name]):
        parts = module.split(".")
        if parts[0] != "lstm_np" or len(parts) == 1:
            continue
        other = parts[1]
        if other not in FLOORS:  # a public name of the package, from the top
            assert FLOORS[room] >= 6, f"{name}:{line} imports {module} from the package's top"
            continue
        allowed = other == room or FLOORS[other] < FLOORS[room] or (room, other) in SAME_FLOOR
        assert allowed, f"{name}:{line} (floor {FLOORS[room]}) imports {module} (floor {FLOORS[other]})"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(NAMESPACE_FREE)])
def test_the_math_uses_the_namespace_it_is_given(name):
    for module, line in imports(FILES[name]):
        assert module.split(".")[0] not in {"numpy", "cupy"}, f"{name}:{line} imports {module}"


@pytest.mark.parametrize("name", list(FILES))
def test_only_backends_and_device_kernels_import_cupy(name):
    at_home = name == "backends/cupy_backend.py" or name.startswith(("kernels/cupy_", "kernels/device_"))
    for module, line in imports(FILES[name]):
        assert at_home or module.split(".")[0] not in {"cupy", "cupyx", "cupy_backends"}, f"{name}:{line}"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("cells/") and name != "cells/__init__.py"])
def test_a_cell_is_pure_and_elementwise(name):
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, (ast.For, ast.While, ast.ClassDef, ast.Global)), f"{name}:{node.lineno}"
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), f"{name}:{node.lineno}"
        assert not isinstance(node, ast.AugAssign), f"{name}:{node.lineno}: no in-place change"
        assert not (isinstance(node, ast.keyword) and node.arg == "out"), f"{name}:{node.lineno}: no out="


def test_the_gate_math_stays_short():
    lines = FILES["cells/lstm.py"].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80


FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "joblib"}


@pytest.mark.parametrize("name", list(FILES))
def test_nothing_that_runs_code_from_a_file(name):
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    for module, line in imports(FILES[name]):
        assert module.split(".")[0] not in FORBIDDEN, f"{name}:{line} imports {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}, f"{name}:{node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant), f"{name}: allow_pickle"
            assert node.value.value is False, f"{name}: allow_pickle"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{name}:{node.lineno}: a bare except swallows Ctrl-C"


@pytest.mark.parametrize("name", list(FILES))
def test_tls_verification_is_nowhere_switched_off(name):
    source = FILES[name].read_text(encoding="utf-8")
    for switch in ("_create_unverified_context", "CERT_NONE", "check_hostname = False", "verify=False"):
        assert switch not in source, f"{name}: {switch}"


def public_definitions(tree: ast.Module):
    """Public functions, classes and methods of a module."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_"))


@pytest.mark.parametrize("name", list(FILES))
def test_everything_public_is_documented(name):
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    if tree.body:
        assert ast.get_docstring(tree), f"{name} has no docstring"
    for node in public_definitions(tree):
        assert ast.get_docstring(node), f"{name}:{node.lineno} {node.name} has no docstring"


def test_the_version_stands_once():
    from importlib.metadata import PackageNotFoundError, version

    try:
        assert lstm_np.__version__ == version("lstm_np")
    except PackageNotFoundError:
        assert lstm_np.__version__ == "0+checkout"
    for path in [*FILES.values()]:
        assert '__version__ = "0.1' not in path.read_text(encoding="utf-8")
