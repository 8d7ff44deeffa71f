"""What README, docs, help and messages send people to is there: commands, flags, files, links, names, extras."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import lstm_np
from lstm_np.__main__ import commands, main

ROOT = Path(lstm_np.__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
SOURCES = sorted(ROOT.glob("lstm_np/**/*.py"))
COMMANDS = dict(commands())  # name -> parser
OTHERS = {"pip", "pytest", "venv", "http"}  # modules that are not of this repository
page = pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])


def flags_of(name: str) -> set[str]:
    return {flag for action in COMMANDS[name]._actions for flag in action.option_strings}


def command_lines(text: str) -> list[list[str]]:
    """The words of every `python -m ...` in a text, as a shell would read them."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = []
    for start in re.finditer(r"python -m (?=\w)", joined):
        rest = re.split(r"[`\n;|)]|&&|\s#|\s{3,}|: ", joined[start.end() :], maxsplit=1)[0]
        try:
            found.append(shlex.split(rest))
        except ValueError:  # an apostrophe of prose
            found.append(rest.split())
    return found


def messages(path: Path) -> str:
    """All text of a source file that people may see: strings, and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return "\n".join(n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))


def module_exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def wrong_in_commands(text: str) -> list[str]:
    """What the commands in a text name that there is not."""
    wrong = []
    for words in command_lines(text):
        module = words[0].strip("'\".,:")
        if module in OTHERS or not re.fullmatch(r"[\w.]+", module):
            continue
        if not module_exists(module):
            wrong.append(f"python -m {module}")
            continue
        command = module.removeprefix("lstm_np.")
        if not module.startswith("lstm_np.") or command not in COMMANDS:
            continue
        flags = flags_of(command)
        given = [word.partition("=")[0] for word in words[1:] if re.match(r"--\w", word)]
        wrong += [f"{command} {flag}" for flag in given if flag.rstrip(".,:") not in flags]
    return wrong


@page
def test_commands_in_a_page(path):
    assert wrong_in_commands(path.read_text(encoding="utf-8")) == []


def test_commands_in_messages_and_docstrings():
    for path in SOURCES:
        assert wrong_in_commands(messages(path)) == [], path


def test_the_search_finds_what_is_not_there():
    assert wrong_in_commands("`python -m lstm_np.train --recpe x`, `python -m lstm_np.tran`") == [
        "train --recpe",
        "python -m lstm_np.tran",
    ]
    assert wrong_in_commands("python -m lstm_np.train --hidden-size 5 --out 'a b'   # a note with --others") == []


def test_flags_in_messages_are_flags_of_a_command():
    known = {flag for name in COMMANDS for flag in flags_of(name)}
    known |= {"--force-reinstall", "--logdir", "--porcelain"}  # of pip, tensorboard, git
    for path in SOURCES:
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", messages(path)):
            assert flag in known, f"{path.relative_to(ROOT)}: {flag}"


@page
def test_flags_that_a_page_puts_in_code(path):
    """A flag by itself in inline code is one of some command here."""
    text = path.read_text(encoding="utf-8")
    known = {flag for name in COMMANDS for flag in flags_of(name)}
    source = "\n".join(file.read_text(encoding="utf-8") for file in ROOT.glob("benchmarks/**/*.py"))
    source += (ROOT / "tests" / "data" / "photographs.py").read_text(encoding="utf-8")
    for flag in re.findall(r"`(--[a-z][a-z-]*)", text):
        assert flag in known or f'"{flag}"' in source, flag


def anchors(text: str) -> set[str]:
    """The anchors that a Markdown page has, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@page
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path if name == "" else (path.parent / name).resolve()
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


@page
def test_paths_in_a_page_exist(path):
    """`docs/x.md`, `lstm_np/data/ink.py`, `tests/...`, from the root or from the package."""
    for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]*\w(?:\.\w+)?/?)`", path.read_text(encoding="utf-8")):
        head = name.split("/")[0]
        if head in ("lstm_np", "docs", "tests", "benchmarks", ".ci") or (ROOT / "lstm_np" / head).is_dir():
            places = [ROOT / name, ROOT / "lstm_np" / name, ROOT / "benchmarks" / name]
            assert any(place.exists() for place in places), name


def test_extras_that_anybody_is_sent_to_exist():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = set(setup["options.extras_require"])
    texts = {path: path.read_text(encoding="utf-8") for path in PAGES} | {path: messages(path) for path in SOURCES}
    for path, text in texts.items():
        for named in re.findall(r"(?:lstm_np|\s\"?\.)\[([a-z0-9,-]+)\]", text):
            assert set(named.split(",")) <= extras, f"{path.relative_to(ROOT)}: {named}"
    # load("module", "extra", ...): the extra that a message then names
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("load", "load_package"):
                extra = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else ""
                assert extra == "" or extra in extras, f"{path.relative_to(ROOT)}: {extra}"


@page
def test_public_names_in_a_page_exist(path):
    """`lstm_np.name` in code, followed as far as it goes."""
    for name in re.findall(r"\blstm_np((?:\.[a-zA-Z]\w*)+)", path.read_text(encoding="utf-8")):
        parts, found = name.strip(".").split("."), lstm_np
        if parts[-1] in ("py", "toml") or module_exists("lstm_np" + name):
            continue
        for part in parts:
            assert hasattr(found, part), f"lstm_np{name}"
            found = getattr(found, part)


@page
def test_environment_variables_in_a_page_are_read(path):
    source = "\n".join(file.read_text(encoding="utf-8") for file in [*SOURCES, *ROOT.glob("tests/**/*.py")])
    for name in set(re.findall(r"\bLSTM_NP_[A-Z_]+\b", path.read_text(encoding="utf-8"))):
        assert f'"{name}"' in source, name


def test_every_command_that_the_readme_lists_has_json():
    """The README says that those of lstm_np have --json."""
    listed = re.findall(
        r"^\| `python -m lstm_np\.(\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {"train", "evaluate", "predict", "gradcheck"} <= set(listed)
    for name in listed:
        assert "--json" in flags_of(name), name


def test_the_package_itself_lists_the_commands(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[: len(COMMANDS)]] == [f"lstm_np.{name}" for name in COMMANDS]
    assert set(COMMANDS) >= {"train", "evaluate", "predict", "gradcheck", "recipes", "data"}
    assert any(line.endswith("Train an LSTM on handwritten digits and test it") for line in lines)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("asked", "answer"),
    [("train", "python -m lstm_np.train"), ("tran", f"there are: {', '.join(COMMANDS)}")],
)
def test_a_command_that_is_asked_of_the_package_is_named(capsys, asked, answer):
    assert main([asked, "--epochs", "3"]) == 2
    assert capsys.readouterr().err == f"lstm_np: no command is started here; {answer}\n"


def test_the_tests_use_all_cores_without_being_told_to():
    """`python -m pytest` runs on as many cores as there are: the plugin is installed with the tests."""
    setup, options = configparser.ConfigParser(), (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert re.search(r'^addopts = ".*-n auto', options, re.MULTILINE)
    assert "pytest-xdist" in setup["options.extras_require"]["test"]
