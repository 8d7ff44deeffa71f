"""load_dataset: which folder is used, what is downloaded, and when the digits step in."""

import functools
import shutil
import sys
import time

import pytest

from lstm_np.data import DatasetError, DownloadError, IDXError, load, load_dataset, load_mnist
from lstm_np.data.folders import DOWNLOAD

CLOSED = ["http://127.0.0.1:9/"]  # the discard port: nothing listens there


@pytest.fixture
def lines():
    return []


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache folder of a user who has set nothing; it does not exist yet."""
    monkeypatch.delenv("LSTM_NP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lstm_np" / "mnist"


@pytest.fixture
def published(write_set, small_arrays, pin, monkeypatch):
    """A folder with a small set that counts as the published MNIST in this test."""
    folder = write_set(small_arrays)
    monkeypatch.setattr(load, "load_mnist", functools.partial(load_mnist, files=pin(folder)))
    return folder


def use_mirror(monkeypatch, folder, answers=True):
    """Let the download copy from a folder; returns the list of what was asked."""
    asked = []

    def fetch(target, mirrors, progress):
        asked.append("fetch")
        if folder is None:
            raise DownloadError("could not download", target)
        shutil.copytree(folder, target, dirs_exist_ok=True)

    monkeypatch.setattr(load, "reachable", lambda mirrors: asked.append("reachable") or answers)
    monkeypatch.setattr(load, "fetch", fetch)
    return asked


def test_argument_before_environment_before_cache(cache, published, monkeypatch, lines, tmp_path):
    asked = use_mirror(monkeypatch, None)
    assert load_dataset(data_dir=published, say=lines.append).verified
    monkeypatch.setenv("LSTM_NP_DATA", str(published))
    assert load_dataset(say=lines.append).verified
    assert load.data_folder() == published
    assert load.data_folder(tmp_path / "other") == tmp_path / "other"
    with pytest.raises(IDXError, match="other"):
        load_dataset(data_dir=tmp_path / "other", say=lines.append)
    monkeypatch.setenv("LSTM_NP_DATA", "")
    assert load.data_folder() == cache
    shutil.copytree(published, cache)
    assert load_dataset(say=lines.append).verified
    assert (asked, lines) == ([], [])


def test_cache_is_filled_by_download(cache, published, monkeypatch, lines):
    asked = use_mirror(monkeypatch, published)
    assert load_dataset(say=lines.append).verified
    assert load_dataset(say=lines.append).verified
    assert (asked, lines) == (["reachable", "fetch"], [])


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damaged_cache_is_downloaded_again(cache, published, monkeypatch, lines, small_arrays, damage):
    shutil.copytree(published, cache)
    path = cache / "t10k-labels-idx1-ubyte.gz"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.write_bytes(b"\0\0\x08\1\0\0\0\5" + bytes(5))
    asked = use_mirror(monkeypatch, published)
    assert load_dataset(say=lines.append).verified
    assert (asked, lines) == (["reachable", "fetch"], [])


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("named", ["argument", "environment"])
@pytest.mark.parametrize("damage", ["no folder", "empty folder", "cut"])
def test_named_folder_is_never_replaced_by_something_else(
    cache, published, monkeypatch, lines, explicit, named, damage, tmp_path
):
    asked = use_mirror(monkeypatch, published)
    folder = tmp_path / "named"
    if damage == "empty folder":
        folder.mkdir()
    elif damage == "cut":
        shutil.copytree(published, folder)
        path = folder / "train-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-3])
    if named == "environment":
        monkeypatch.setenv("LSTM_NP_DATA", str(folder))
    with pytest.raises(IDXError) as caught:
        load_dataset(data_dir=folder if named == "argument" else None, say=lines.append, explicit=explicit)
    assert str(folder) in str(caught.value)
    assert (asked, lines) == ([], [])


@pytest.mark.parametrize(
    ("why", "text"),
    [("offline", "--offline forbids"), ("no answer", "no mirror can be reached"), ("no files", "could not download")],
)
def test_digits_step_in_with_one_line(cache, monkeypatch, lines, why, text):
    pytest.importorskip("sklearn", reason="scikit-learn (extra `data`) is missing")
    asked = use_mirror(monkeypatch, None, answers=why == "no files")
    dataset = load_dataset(offline=why == "offline", say=lines.append)
    assert (dataset.name, dataset.image_shape, len(lines)) == ("digits", (8, 8), 1)
    assert len(lines[0].splitlines()) == 1
    assert all(part in lines[0] for part in (text, "8x8 digits", DOWNLOAD, "LSTM_NP_DATA"))
    assert asked == {"offline": [], "no answer": ["reachable"], "no files": ["reachable", "fetch"]}[why]
    lines.clear()
    with pytest.raises(DownloadError, match=text):
        load_dataset(offline=why == "offline", say=lines.append, explicit=True)
    assert lines == []


def test_without_a_home_folder_the_digits_step_in_too(monkeypatch, lines):
    pytest.importorskip("sklearn", reason="scikit-learn (extra `data`) is missing")
    for name in ("LSTM_NP_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    asked = use_mirror(monkeypatch, None)
    assert load_dataset(say=lines.append).name == "digits"
    assert asked == []
    (line,) = lines
    assert line.startswith("MNIST has no folder to be kept in (~/.cache: no home folder is known for ~")
    with pytest.raises(DownloadError, match="no folder to be kept in"):
        load_dataset(explicit=True, say=lines.append)


def test_fallback_comes_quickly(cache, lines):
    pytest.importorskip("sklearn.datasets", reason="scikit-learn (extra `data`) is missing")
    start = time.perf_counter()
    assert load_dataset(say=lines.append, mirrors=CLOSED).name == "digits"
    assert time.perf_counter() - start < 6
    assert len(lines) == 1


def test_neither_mnist_nor_scikit_learn(cache, monkeypatch, lines):
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        DatasetError, match=r"MNIST is not in .*pip install \"lstm_np\[data\]\".*lstm_np\.data downloads"
    ) as caught:
        load_dataset(offline=True, say=lines.append)
    assert len(str(caught.value).splitlines()) == 1


def test_own_set_is_used_with_a_note(cache, write_set, small_arrays, lines):
    dataset = load_dataset(data_dir=write_set(small_arrays), say=lines.append)
    assert dataset.name == "custom"
    assert len(lines) == 1
    assert "not the published MNIST" in lines[0]


def test_digits_by_name_need_no_folder(cache, monkeypatch, lines):
    pytest.importorskip("sklearn", reason="scikit-learn (extra `data`) is missing")
    asked = use_mirror(monkeypatch, None)
    assert load_dataset("digits", say=lines.append).name == "digits"
    assert (asked, lines) == ([], [])


def test_unknown_name(lines):
    with pytest.raises(DatasetError, match="unknown data set 'cifar', expected one of: mnist, digits"):
        load_dataset("cifar", say=lines.append)


def test_cache_folder_by_default_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load.cache_folder() == tmp_path / ".cache" / "lstm_np" / "mnist"


def test_lines_go_to_stderr_by_default(cache, write_set, small_arrays, capsys):
    load_dataset(data_dir=write_set(small_arrays))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("note: ")
