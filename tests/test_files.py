"""Files: a home folder written as ~, the old content or the new, links and devices, and systems without folder sync."""

from __future__ import annotations

import contextlib
import os
import pty
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import lstm_np
from benchmarks import results
from lstm_np import data
from lstm_np.data.load import cache_folder, data_folder
from lstm_np.display.pictures import save_picture
from lstm_np.files import append_durably, expand, remove_temporary, write_atomically
from lstm_np.training import load_recipe, run_folder
from lstm_np.training.recipes.compare import write_table

pytestmark = pytest.mark.quick


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and a current folder elsewhere in which nothing may appear."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert os.listdir(tmp_path / "here") == []


@pytest.fixture
def homeless(monkeypatch):
    """A user of whom no home folder is known."""

    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


# ---- ~


def test_a_home_folder_is_put_in_the_place_of_its_sign(home):
    assert expand("~/a/b") == home / "a" / "b"
    assert expand(Path("~")) == home
    for path in ("a/~/b", "/tmp/~x", "x~", "~nobody-of-this-name/x", "~$a"):
        assert expand(path) == Path(path)


def test_every_path_that_comes_in_is_expanded(home, monkeypatch):
    model = lstm_np.SequenceClassifier(3, 4, 2)
    model.save("~/w.safetensors")
    assert lstm_np.SequenceClassifier.load("~/w.safetensors").config == model.config
    save_picture("~/p.png", b"png")
    assert sorted(path.name for path in home.iterdir()) == ["p.png", "w.safetensors"]
    assert run_folder.weights_path("~/w.safetensors") == home / "w.safetensors"
    assert run_folder.create("~/runs/one", "name").path == home / "runs" / "one"
    (home / "mine.toml").write_text('title = "T"\ndescription = "D"\n')
    assert load_recipe("~/mine.toml").path == str(home / "mine.toml")
    write_table("~", [load_recipe()], [])
    assert (home / "results.md").read_text().startswith("| recipe |")
    with pytest.raises(results.ResultError, match=f"^{home}/r/cpu.json: no readable result file"):
        results.read("cpu", "~/r")
    assert data_folder("~/m") == home / "m"
    assert cache_folder() == home / ".cache" / "lstm_np" / "mnist"
    with pytest.raises(data.IDXError, match=f"^{home}/m: byte 0: found no such folder"):
        data.load_mnist("~/m")
    with pytest.raises(data.IDXError, match=f"^{home}/x: byte 0: found no such file"):
        data.read_idx("~/x")
    monkeypatch.setenv("LSTM_NP_DATA", "~/n")
    with pytest.raises(data.IDXError, match=f"^{home}/n: byte 0: found no such folder"):
        data.load_dataset("mnist")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/c")
    assert cache_folder() == home / "c" / "lstm_np" / "mnist"


def test_where_no_home_folder_is_known_a_line_says_so(homeless, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = r"^~/w: no home folder is known for ~; write the path out$"
    model = lstm_np.SequenceClassifier(3, 4, 2)
    with pytest.raises(ValueError, match=line):
        model.save("~/w")
    with pytest.raises(lstm_np.WeightsError, match=line):
        lstm_np.SequenceClassifier.load("~/w")
    with pytest.raises(ValueError, match=r"^~/\.cache: no home folder is known for ~"):
        cache_folder()
    assert os.listdir(tmp_path) == []


def test_data_fetch_says_it_in_a_line_as_well(homeless, capsys, monkeypatch):
    import data_fetch

    monkeypatch.delenv("LSTM_NP_DATA", raising=False)
    assert data_fetch.main([]) == 2
    assert capsys.readouterr().err == "data_fetch.py: ~/.cache: no home folder is known for ~; write the path out\n"


# ---- the old content or the new


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space left"):
                write_atomically(path, b"new")
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]


def test_a_system_that_takes_a_few_bytes_at_a_time(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, bytes(content)[:3]))
    write_atomically(tmp_path / "file", b"0123456789")
    append_durably(tmp_path / "file", b"abcdefg")
    assert (tmp_path / "file").read_bytes() == b"0123456789abcdefg"


def test_what_cannot_be_added_whole_is_not_added(tmp_path, monkeypatch):
    path = tmp_path / "file"
    append_durably(path, b"old\n")
    for call in ("write", "fsync"):
        real, calls = getattr(os, call), []

        def full(handle, *content, real=real, calls=calls, call=call):
            calls.append(handle)
            if call == "fsync" or len(calls) > 1:
                raise OSError(28, "No space left on device")
            return real(handle, bytes(*content)[:2])

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
                append_durably(path, b"new\n")
        assert path.read_bytes() == b"old\n"


def test_half_written_files_of_a_killed_process(tmp_path):
    for name in (".a.safetensors.x1y2.part", "b.part", ".hidden"):
        (tmp_path / name).touch()
    remove_temporary(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "b.part"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX alone has folders that are synced")
def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    done = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    for name, call in real.items():
        monkeypatch.setattr(os, name, lambda *given, _name=name, _call=call: (done.append(_name), _call(*given))[1])
    write_atomically(tmp_path / "file", b"new")
    assert done == ["fsync", "replace", "fsync"]


def test_a_system_that_cannot_open_folders(tmp_path, monkeypatch):
    """Windows: os.open of a folder raises PermissionError."""
    opened = os.open

    def open_no_folder(path, *more, **named):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *more, **named)

    monkeypatch.setattr(os, "open", open_no_folder)
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "file", b"1")
    path = tmp_path / "other"  # made here: pathlib picks its kind of path by os.name
    monkeypatch.setattr("lstm_np.files.os", _Windows(os))
    write_atomically(path, b"2")
    assert path.read_bytes() == b"2"


class _Windows:
    """The module os, of another system."""

    name = "nt"

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, name)


# ---- links and devices


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link, second = tmp_path / "elsewhere" / "target", tmp_path / "link", tmp_path / "second"
    target.write_bytes(b"old")
    link.symlink_to(Path("elsewhere") / "target")
    second.symlink_to(link)
    write_atomically(second, b"new")
    assert link.is_symlink()
    assert second.is_symlink()
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path / "elsewhere") == ["target"]
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "link", "second"]


def test_a_link_to_nothing_makes_the_file_that_it_names(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("target")
    write_atomically(link, b"new")
    assert (link.is_symlink(), (tmp_path / "target").read_bytes()) == (True, b"new")


def test_links_in_a_circle_and_into_nowhere_name_the_path_that_was_given(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("link")
    with pytest.raises(OSError) as error:
        write_atomically(link, b"new")
    assert error.value.filename == str(link)
    link.unlink()
    link.symlink_to("none/target")
    with pytest.raises(FileNotFoundError) as error:
        write_atomically(link, b"new")
    assert error.value.filename == str(link)


def test_a_model_is_saved_through_a_link(tmp_path):
    model = lstm_np.SequenceClassifier(3, 4, 2)
    (tmp_path / "link").symlink_to("target")
    model.save(tmp_path / "link")
    model.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert lstm_np.SequenceClassifier.load(tmp_path / "link").config == model.config


@contextlib.contextmanager
def terminal():
    """(the end that reads, the path of the end that is written to): a device that no fault of ours can replace.

    /dev/null would be replaced, for every program on the machine, where root runs the tests.
    """
    ours, theirs = pty.openpty()
    try:
        yield ours, os.ttyname(theirs)
    finally:
        os.close(theirs)
        os.close(ours)


def test_a_picture_is_saved_through_a_link_and_to_a_device(tmp_path):
    (tmp_path / "link.png").symlink_to("target.png")
    save_picture(tmp_path / "link.png", b"png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "target.png").read_bytes() == b"png"
    with terminal() as (ours, name):
        save_picture(name, b"png")
        assert os.read(ours, 3) == b"png"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomically(pipe, b"new")
    reader.join(10)
    assert received == [b"new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="this system has no /dev/stdout")
def test_a_device_is_written_to_and_not_replaced():
    with terminal() as (ours, name):
        write_atomically(name, b"new")
        assert os.read(ours, 3) == b"new"
        assert stat.S_ISCHR(os.stat(name).st_mode)
    code = "from lstm_np.files import write_atomically; write_atomically('/dev/stdout', b'new')"
    assert subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout == b"new"
