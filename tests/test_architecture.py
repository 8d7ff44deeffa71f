"""The architecture, checked by reading the syntax trees: who may import whom, and what no package may do."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lstm_np
from lstm_np.cells import BUILT_IN

PACKAGE = Path(lstm_np.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# A package imports only packages on a lower level, and itself.
LEVELS = {
    name: level
    for level, names in enumerate(
        (
            ("errors", "startup"),
            ("options", "old_names", "extras", "streams", "files", "backends", "workers"),
            ("display", "parameters", "cells", "weights", "data"),
            ("kernels", "initializers", "losses", "optimizers", "loop"),
            ("steps", "trace", "device", "checkpoints", "distributed"),
            ("layers",),
            ("model",),
            ("gradcheck", "interop", "training"),
            ("explain", "text", "sklearn"),
            ("cli",),
            ("train", "evaluate", "predict", "recipes"),  # the commands, and every __main__.py
        )
    )
    for name in names
}
COMMANDS = max(LEVELS.values())
NAMESPACE_FREE = ("cells/", "layers/", "kernels/reference.py", "losses.py", "optimizers.py")


def package_of(name: str) -> str:
    """ "kernels/reference.py" -> "kernels"; "model.py" -> "model"."""
    return name.split("/")[0].removesuffix(".py")


def level_of(name: str) -> int:
    """The level of a file: that of its package, or that of the commands for a __main__.py."""
    return COMMANDS if name.endswith("__main__.py") else LEVELS[package_of(name)]


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
def test_a_package_imports_only_lower_levels(name):
    package = package_of(name)
    assert package in LEVELS, f"{name} is on no level: add its package to LEVELS and to docs/architecture.md"
    for module, line in imports(FILES[name]):
        parts = module.split(".")
        if parts[0] != "lstm_np" or len(parts) == 1:
            continue
        other = parts[1]
        if other not in LEVELS:  # a public name of the package, from the top
            assert level_of(name) == COMMANDS, f"{name}:{line} imports {module} from the package's top"
            continue
        allowed = other == package or LEVELS[other] < level_of(name)
        assert allowed, f"{name}:{line} (level {level_of(name)}) imports {module} (level {LEVELS[other]})"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(NAMESPACE_FREE)])
def test_the_math_uses_the_namespace_it_is_given(name):
    for module, line in imports(FILES[name]):
        assert module.split(".")[0] not in {"numpy", "cupy"}, f"{name}:{line} imports {module}"


@pytest.mark.parametrize("name", list(FILES))
def test_only_backends_and_device_kernels_import_cupy(name):
    at_home = name == "backends/cupy_backend.py" or name.startswith(("kernels/gpu/", "device/"))
    for module, line in imports(FILES[name]):
        assert at_home or module.split(".")[0] not in {"cupy", "cupyx", "cupy_backends"}, f"{name}:{line}"


@pytest.mark.parametrize("name", [f"cells/{name}.py" for name in BUILT_IN])
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
