"""python -m lstm_np.data and python data_fetch.py: exit status, lines, and that they work from any folder."""

import functools
import gzip
import http.server
import importlib
import json
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

from lstm_np.data import fetch, load, load_mnist
from lstm_np.data.download import is_valid
from lstm_np.data.folders import DOWNLOAD
from tests.data.conftest import NAMES, idx_of

SCRIPT = Path(__file__).resolve().parents[2] / "data_fetch.py"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        pass


@pytest.fixture
def serve():
    """serve(folder) gives the address of a loopback mirror of that folder."""
    servers = []

    def start(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def command(write_set, small_arrays, pin, monkeypatch, tmp_path):
    """The command's module, for which a small set (in the folder `command.published`) is the published MNIST."""
    module = importlib.import_module("lstm_np.data.__main__")
    monkeypatch.setattr(module, "published", write_set(small_arrays), raising=False)
    table = pin(module.published)
    monkeypatch.setenv("LSTM_NP_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(module, "FILES", table)
    monkeypatch.setattr(module, "fetch", functools.partial(fetch, files=table))
    monkeypatch.setattr(module, "load_mnist", functools.partial(load_mnist, files=table))
    monkeypatch.setattr(module, "is_complete", lambda folder: all(is_valid(folder / file.name, file) for file in table))
    return module


def test_fetch_then_nothing_to_do(command, serve, tmp_path, capsys):
    mirror = serve(command.published)
    assert command.main(["--mirror", mirror, "--json"]) == 0
    *_, line, answer = capsys.readouterr().out.splitlines()
    assert line == f"MNIST is in {tmp_path / 'data'}: 4 files, sha256 verified, 4 downloaded now"
    answer = json.loads(answer)
    assert (answer["folder"], answer["verified"], len(answer["downloaded"])) == (str(tmp_path / "data"), True, 4)
    assert [file["name"] for file in answer["files"]] == [file.name for file in command.FILES]
    assert command.main(["--offline", "--verify", "--json", "--quiet"]) == 0
    (answer,) = capsys.readouterr().out.splitlines()
    assert json.loads(answer)["downloaded"] == []


def test_data_dir_before_environment(command, serve, tmp_path, capsys):
    folder = tmp_path / "elsewhere"
    assert command.main(["--data-dir", str(folder), "--mirror", serve(command.published), "--quiet"]) == 0
    assert len(list(folder.iterdir())) == 4
    assert not (tmp_path / "data").exists()
    assert capsys.readouterr().out == ""


def test_failure_lists_the_mirrors_and_the_way_by_hand(command, serve, tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    mirror = serve(tmp_path / "nothing")
    assert command.main(["--mirror", mirror, "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    first, *rest = printed.err.splitlines()
    assert first.startswith("data: could not download train-images-idx3-ubyte.gz")
    assert f"{mirror}: HTTP 404" in first
    assert sum("sha256" in line for line in rest) == 4


@pytest.mark.parametrize("option", [["--offline"], ["--offline", "--verify"]])
def test_offline_without_the_files(command, option, capsys):
    assert command.main([*option, "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("data: ")


def test_verify_finds_a_changed_file(command, small_arrays, capsys):
    folder = command.published
    path = folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(b"\0\0\x08\1\0\0\0\5" + bytes(5))
    assert command.main(["--data-dir", str(folder), "--offline", "--verify", "--quiet"]) == 2
    assert "t10k-labels-idx1-ubyte differ" in capsys.readouterr().err


def test_interrupt(command, monkeypatch, capsys):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "fetch", interrupt)
    assert command.main([]) == 130
    assert capsys.readouterr().err == "data: interrupted: no half file was left\n"


def test_bad_option_is_one_line(command, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--mirrors"])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


WAYS = {"script": [str(SCRIPT)], "module": ["-m", "lstm_np.data"]}


def run(arguments, cwd, way="script", **environment):
    return subprocess.run(
        [sys.executable, *WAYS[way], *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parent), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(("way", "called"), [("script", "data_fetch.py"), ("module", "data")])
def test_from_another_folder(tmp_path, way, called):
    assert "--data-dir" in run(["--help"], tmp_path, way).stdout
    done = run(["--offline", "--quiet"], tmp_path, way, LSTM_NP_DATA=str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{called}: {tmp_path}/none does not hold the four verified files")


def test_what_messages_advertise_is_in_the_package():
    """A wheel holds the package alone: no message in it may send people to a file of the checkout."""
    package = Path(load.__file__).parents[1]
    texts = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert [path for path, text in texts.items() if "data_fetch" in text] == []
    assert DOWNLOAD == "python -m lstm_np.data"
    assert find_spec("lstm_np.data.__main__") is not None


@pytest.mark.parametrize("pack", [True, False])
def test_files_of_another_set_are_kept(command, serve, write_set, small_arrays, tmp_path, capsys, pack):
    """Who follows the advice of a message in a folder of his own loses nothing."""
    (tmp_path / "own").mkdir()
    small_arrays[1][0] ^= 1
    for name, array in zip(NAMES[:2], small_arrays[:2], strict=True):
        data = idx_of(array)
        (tmp_path / "own" / (f"{name}.gz" if pack else name)).write_bytes(gzip.compress(data) if pack else data)
    before = {path.name: path.read_bytes() for path in (tmp_path / "own").iterdir()}
    assert command.main(["--data-dir", str(tmp_path / "own"), "--mirror", serve(command.published), "--quiet"]) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "own").iterdir()} == before
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("belongs to another set, which is kept; name another folder")
    assert NAMES[1] in line


@pytest.mark.skipif(not os.environ.get(load.ENVIRONMENT), reason="LSTM_NP_DATA names no folder with the real MNIST")
def test_real_files_from_a_loopback_mirror(serve, tmp_path):
    mirror = serve(os.environ[load.ENVIRONMENT])
    if not load.is_complete(Path(os.environ[load.ENVIRONMENT])):
        pytest.skip("LSTM_NP_DATA does not hold the four packed files")
    done = run(["--data-dir", str(tmp_path / "mnist"), "--mirror", mirror, "--verify", "--json"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout.splitlines()[-1])["downloaded"]) == 4


def test_before_anything_is_installed_it_says_what_to_install(tmp_path):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\", name='numpy')")
    found = subprocess.run(
        [sys.executable, SCRIPT],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
        timeout=60,
    )
    assert found.returncode == 2
    assert found.stderr == "data_fetch.py: needs numpy, which is not installed: pip install -e .\n"
