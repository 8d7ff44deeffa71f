"""The architecture, checked by reading the syntax trees: who may import whom, and what no package may do."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import lstm_np
from lstm_np.backends import BACKENDS
from lstm_np.cells import BUILT_IN

pytestmark = pytest.mark.quick

PACKAGE = Path(lstm_np.__file__).parent
BENCHMARKS = PACKAGE.parent / "benchmarks"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# A package imports only packages on a lower level, and itself.
LEVELS = {
    name: level
    for level, names in enumerate(
        (
            ("arrays", "errors", "other_names", "startup"),
            ("options", "old_names", "extras", "streams", "files", "backends", "workers"),
            ("display", "metrics", "parameters", "cells", "weights", "packing"),
            ("data", "kernels", "initializers", "losses", "optimizers", "loop"),
            ("callbacks", "divergence", "holds", "trace", "device", "checkpoints", "distributed"),
            ("steps",),
            ("layers",),
            ("model",),
            ("gradcheck", "interop", "training"),
            ("explain", "plot", "text", "sklearn"),
            ("cli",),
            ("train", "evaluate", "predict", "recipes", "__main__"),  # the commands, and every __main__.py
        )
    )
    for name in names
}
COMMANDS = max(LEVELS.values())
TESTS = Path(__file__).parent
# tests of no one part
ACROSS = {
    "architecture", "docs", "examples", "fit", "habits", "path", "program", "readme", "resume", "strict_backend",
    "words",
}  # fmt: skip
FOLDERS = {
    "commands": "the commands and lstm_np/cli",
    "gpu": "lstm_np/kernels/gpu, lstm_np/device and benchmarks/gpu, on a stand-in for CuPy",
    "benchmarks": "benchmarks",
    "fixtures": "files that tests read",
    "campaigns": "long campaigns of faults, started by hand",
}
NAMESPACE_FREE = ("cells/", "layers/", "kernels/reference.py", "losses.py", "optimizers.py")


def package_of(name: str) -> str:
    """ "kernels/reference.py" -> "kernels"; "model.py" -> "model"."""
    return name.split("/")[0].removesuffix(".py")


def level_of(name: str) -> int:
    """The level of a file: that of its package, or that of the commands for a __main__.py."""
    return COMMANDS if name.endswith("__main__.py") else LEVELS[package_of(name)]


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree; most tests here look at all of them."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All nodes of its syntax tree."""
    return list(ast.walk(tree_of(path)))


@functools.cache
def imports(path: Path) -> list[tuple[str, int]]:
    """Every absolute module name that a file imports, at the top or inside a function, with its line."""
    found = []
    for node in nodes_of(path):
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


def test_the_imports_of_files_make_no_circle():
    """At the top of a file or inside a function: who is imported is complete before who imports."""
    modules = {
        f"lstm_np.{name.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__"): name for name in FILES
    }
    graph: dict[str, set[str]] = {}
    for name, path in FILES.items():
        parts = [module.split(".") for module, _ in imports(path)]
        prefixes = [[".".join(part[:length]) for length in range(len(part), 0, -1)] for part in parts]
        found = {
            next((modules[prefix] for prefix in longest_first if prefix in modules), name) for longest_first in prefixes
        }
        graph[name] = found - {name}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


# Whole packages, and what stands beside them: of benchmarks all files are one.
SOURCES = {f"lstm_np/{name}": path for name, path in FILES.items()} | {
    f"benchmarks/{path.relative_to(BENCHMARKS).as_posix()}": path for path in sorted(BENCHMARKS.rglob("*.py"))
}
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}  # public, with an underscore to keep fields' names free


def home_of(name: str) -> str:
    """ "lstm_np/kernels/reference.py" -> "lstm_np/kernels"; "benchmarks/gpu/race.py" -> "benchmarks"."""
    first, rest = name.split("/", 1)
    return first if first == "benchmarks" else f"lstm_np/{package_of(rest)}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in NAMED_TUPLE


def private_definitions(path: Path) -> set[str]:
    """The underscore names that a file defines: functions, classes, variables, and attributes of self."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return set(filter(is_private, found))


@functools.cache
def private_names() -> dict[str, set[str]]:
    """The underscore names of each package."""
    found: dict[str, set[str]] = {}
    for name, path in SOURCES.items():
        found.setdefault(home_of(name), set()).update(private_definitions(path))
    return found


@functools.cache
def private_elsewhere(home: str) -> set[str]:
    """The underscore names of the other packages alone."""
    return set().union(*(names for other, names in private_names().items() if other != home)) - private_names()[home]


@pytest.mark.parametrize("name", list(SOURCES))
def test_no_package_reaches_into_anothers_underscore_names(name):
    others = private_elsewhere(home_of(name))
    for node in nodes_of(SOURCES[name]):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            assert node.attr not in others, f"{name}:{node.lineno}: {ast.unparse(node)} belongs to another package"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("lstm_np.", "benchmarks.")):
            module = f"{node.module}.py".replace(".", "/", node.module.count("."))
            for alias in node.names:
                private = is_private(alias.name) and home_of(module) != home_of(name)
                assert not private, f"{name}:{node.lineno} imports {alias.name} from {node.module}"


def test_the_tests_are_laid_out_as_the_package_is():
    """tests/X/ is of lstm_np/X/; tests/test_X.py and tests/test_X_more.py are of lstm_np/X.py, or of all lstm_np/X/."""
    parts = {package_of(name) for name in FILES}
    for path in sorted(TESTS.iterdir()):
        if path.is_dir() and not path.name.startswith(("_", ".")) and path.name not in FOLDERS:
            assert (PACKAGE / path.name).is_dir(), f"tests/{path.name}: there is no such package; see FOLDERS"
        subject = path.stem.removeprefix("test_")
        if path.name.startswith("test_") and subject not in ACROSS:
            found = any(subject == part or subject.startswith(f"{part}_") for part in parts)
            assert found, f"tests/{path.name}: name it after the part that it tests, or see ACROSS"


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
    for node in nodes_of(FILES[name]):
        assert not isinstance(node, (ast.For, ast.While, ast.ClassDef, ast.Global)), f"{name}:{node.lineno}"
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), f"{name}:{node.lineno}"
        assert not isinstance(node, ast.AugAssign), f"{name}:{node.lineno}: no in-place change"
        assert not (isinstance(node, ast.keyword) and node.arg == "out"), f"{name}:{node.lineno}: no out="


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("cells/")])
def test_nobody_looks_at_the_module_of_a_cell(name):
    """What a cell has it declares (`lstm_np.cells.declaration`): nothing is told from which module it is."""
    for module, line in imports(FILES[name]):
        package, _, cell = module.removeprefix("lstm_np.").partition(".")
        assert package != "cells" or cell.split(".")[0] not in BUILT_IN, f"{name}:{line} imports {module}"


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("backends/")])
def test_nobody_compares_the_name_of_a_backend(name):
    """What a backend can do it says (`lstm_np.backends.Backend`)."""
    for node in nodes_of(FILES[name]):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            sides += [part for side in sides if isinstance(side, (ast.Tuple, ast.List, ast.Set)) for part in side.elts]
            constants = {side.value for side in sides if isinstance(side, ast.Constant)}
            assert not constants & set(BACKENDS), f"{name}:{node.lineno}: {ast.unparse(node)}"


def sizes_of_packages() -> dict[str, int]:
    """Lines by package, a package within another by itself, as kernels/cpu; those of files at the top by their names.

    Python, CUDA and recipes count.
    """
    found: dict[str, int] = {}
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in (".py", ".cu", ".cuh", ".toml"):
            package = next(folder for folder in path.parents if (folder / "__init__.py").exists())
            name = (path if package == PACKAGE else package).relative_to(PACKAGE).as_posix()
            found[name] = found.get(name, 0) + len(path.read_text(encoding="utf-8").splitlines())
    return found


def test_no_package_has_a_fifth_of_the_lines():
    sizes = sizes_of_packages()
    largest, lines = max(sizes.items(), key=lambda item: item[1])
    assert lines < 0.2 * sum(sizes.values()), f"{largest} has {lines} of {sum(sizes.values())} lines"


def test_the_gate_math_stays_short():
    lines = FILES["cells/lstm.py"].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80


FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "joblib"}


@pytest.mark.parametrize("name", list(FILES))
def test_nothing_that_runs_code_from_a_file(name):
    for module, line in imports(FILES[name]):
        assert module.split(".")[0] not in FORBIDDEN, f"{name}:{line} imports {module}"
    for node in nodes_of(FILES[name]):
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


def test_the_modules_of_the_network_are_loaded_when_something_is_fetched():
    script = "import sys, lstm_np; print(*sorted({'ssl', 'http.client', 'urllib.request'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "\n"


def public_definitions(tree: ast.Module):
    """Public functions, classes and methods of a module."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_"))


@pytest.mark.parametrize("name", list(FILES))
def test_everything_public_is_documented(name):
    tree = tree_of(FILES[name])
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
