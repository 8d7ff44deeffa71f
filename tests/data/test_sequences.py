"""read_sequences: what is written in a form is read from it, bit for bit, and what is not said is recognized."""

import gzip
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstm_np.data import DatasetError, read_sequences
from lstm_np.data.sequences import arrays, fingerprint_of_files
from tests.data.sequence_files import write_folder, write_long, write_rows, write_ts, write_wide

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(11)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=4)
LABELS = TEXTS.filter(lambda text: text.lower() not in ("na", "nan", "null", "none", "?", "inf", "infinity"))
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
ONE_FOLDER = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@st.composite
def sequences(draw, missing=True, values=NUMBER):
    """(a list of arrays (T_i, D), the names of the features); the last step of each has a value."""
    D, N = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    value = values | st.just(float("nan")) if missing else values
    x = []
    for _ in range(N):
        rows = draw(st.lists(st.lists(value, min_size=D, max_size=D), max_size=3))
        x.append(np.array([*rows, draw(st.lists(values, min_size=D, max_size=D))]))
    return x, ["load", "speed", "x y"][:D]


def same(found, x):
    """Whether what was read are these sequences, with all their bits."""
    assert len(found.x) == len(x)
    assert found.is_list == (len({len(one) for one in x}) > 1)
    for one, other in zip(found.x, x, strict=True):
        np.testing.assert_array_equal(one, other)


@ONE_FOLDER
@given(data=sequences(), labels=st.data())
def test_long_form_with_a_label_for_each_sequence(tmp_path, data, labels):
    x, names = data
    classes = labels.draw(st.lists(LABELS, min_size=len(x), max_size=len(x)))
    rows = sum(map(len, x))
    order = labels.draw(st.permutations(range(rows)))
    path = write_long(tmp_path / "a.csv", x, names, [classes], ["label"], order, ids=[f"s{n}" for n in range(len(x))])
    found = read_sequences(path, layout="long", task="classify")
    by_id = sorted(range(len(x)), key=lambda n: found.ids[n])
    same(found.take(by_id), x)
    assert found.names == tuple(names)
    read = [str(found.classes[found.targets[n]]) for n in by_id]
    assert read == [str(int(text)) if isinstance(found.classes[0], int) else text for text in classes]


@ONE_FOLDER
@given(data=sequences(), targets=st.data())
def test_long_form_with_numbers_for_each_step(tmp_path, data, targets):
    x, names = data
    y = [[targets.draw(NUMBER) for _ in sequence] for sequence in x]
    y[0] = [*y[0][:-1], 0.5] if len(x[0]) > 1 else y[0]
    path = write_long(tmp_path / "a.csv", x, names, [y, y], ["u", "v"])
    found = read_sequences(path, target=("u", "v"), layout="long", task="regress", per_step=True)
    same(found, x)
    assert found.per_step
    for one, other in zip(found.targets, y, strict=True):
        np.testing.assert_array_equal(one, np.stack((other, other), axis=1))


@ONE_FOLDER
@given(data=sequences(), targets=st.data())
def test_wide_form(tmp_path, data, targets):
    x, names = data
    y = [targets.draw(NUMBER) for _ in x]
    found = read_sequences(write_wide(tmp_path / "a.csv", x, names, [y], ["y"]), layout="wide", task="regress")
    same(found, x)
    assert found.names == tuple(names)
    np.testing.assert_array_equal(found.targets[:, 0], y)


@ONE_FOLDER
@given(data=sequences(), labels=st.data())
def test_ts(tmp_path, data, labels):
    x, _ = data
    classes = labels.draw(st.lists(st.sampled_from(["b", "a", "10", "2"]), min_size=len(x), max_size=len(x)))
    found = read_sequences(write_ts(tmp_path / "a.ts", x, classes, classes=["b", "a", "2", "10"]))
    same(found, x)
    assert found.classes == ("b", "a", "2", "10")
    assert [found.classes[k] for k in found.targets] == classes
    found = read_sequences(write_ts(tmp_path / "a.ts", x, targets=range(len(x))))
    assert (found.task, found.targets[:, 0].tolist()) == ("regress", list(range(len(x))))
    assert read_sequences(write_ts(tmp_path / "a.ts", x)).task is None


@ONE_FOLDER
@given(data=sequences(missing=False))
def test_arrays_in_files(tmp_path, data):
    x, names = data
    T = max(map(len, x))
    padded = np.full((len(x), T, len(names)), 7.0)
    for row, sequence in zip(padded, x, strict=True):
        row[: len(sequence)] = sequence
    lengths = np.array([len(sequence) for sequence in x])
    y = np.arange(len(x)) / 4
    np.savez(tmp_path / "a.npz", x=padded, y=y, lengths=lengths, features=names, groups=["p", "q", "p", "q"][: len(x)])
    found = read_sequences(tmp_path / "a.npz")
    same(found, x)
    assert (found.names, found.targets[:, 0].tolist(), found.task) == (tuple(names), y.tolist(), "regress")
    padded[np.arange(T) >= lengths[:, None]] = np.nan  # which says the same
    np.save(tmp_path / "x.npy", padded)
    np.save(tmp_path / "y.npy", np.array(["n", "m", "n", "m"])[: len(x)])
    found = read_sequences(tmp_path / "x.npy")
    same(found, x)
    assert found.classes == ("m", "n")


def test_a_folder(tmp_path):
    x = [RNG.standard_normal((T, 2)) for T in (3, 1, 4)]
    found = read_sequences(write_folder(tmp_path / "by-class", x, ["a", "b"], ["up", "down", "up"]))
    same(found, [x[1], x[0], x[2]])  # in the order of their paths
    assert list(found.ids) == ["down/0001.csv", "up/0000.csv", "up/0002.csv"]
    assert [found.classes[k] for k in found.targets] == ["down", "up", "up"]
    folder = write_folder(tmp_path / "labels", x, ["a", "b"])
    write_rows(folder / "labels.csv", [["file", "age"], ["0002.csv", "2.5"], ["0000", "0.5"], ["0001.csv", "1.5"]])
    found = read_sequences(folder)
    same(found, x)
    assert (found.task, found.targets[:, 0].tolist()) == ("regress", [0.5, 1.5, 2.5])
    found = read_sequences(folder, target="b", features="a", per_step=True)
    assert [one[:, 0].tolist() for one in found.targets] == [one[:, 1].tolist() for one in x]
    assert read_sequences(folder, target=()).task is None
    assert len(found.files) == 4
    (folder / "labels.csv").rename(tmp_path / "others.csv")
    assert read_sequences(folder, labels=tmp_path / "others.csv").targets[:, 0].tolist() == [0.5, 1.5, 2.5]


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_data_frames(package):
    frames = pytest.importorskip(package)
    frame = frames.DataFrame({
        "id": ["p", "p", "q", "q"], "time": [0, 1, 1, 0], "speed": [1.5, None, 3.5, 4.5], "label": ["u", "u", "v", "v"],
    })  # fmt: skip
    found = read_sequences(frame)
    np.testing.assert_array_equal(found.x[:, :, 0], [[1.5, np.nan], [4.5, 3.5]])
    assert (found.names, found.classes, found.targets.tolist()) == (("speed",), ("u", "v"), [0, 1])
    assert found.place(1, 0, 0) == "the data frame: row 3, column 'speed'"
    with pytest.raises(DatasetError, match="the data frame: row 1, column 'label': found 'u', expected a number"):
        read_sequences(frame, task="regress")


def test_awkward_arrays():
    awkward = pytest.importorskip("awkward")
    x = awkward.Array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]])
    found = read_sequences(x, targets=awkward.Array([[0, 1], [1]]))
    same(found, [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0]])])
    assert found.task == "tag"
    assert [one.tolist() for one in found.targets] == [[0, 1], [1]]


# ------------------------------------------------------------------------------------------- what is recognized


def table(tmp_path, *lines, name="a.csv"):
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / name


@pytest.mark.parametrize(
    ("lines", "task", "targets"),
    [
        (("id,x,label", "a,1,no", "a,2,no", "b,3,yes"), "classify", [0, 1]),
        (("id,x,label", "a,1,no", "a,2,yes", "b,3,yes"), "tag", [[0, 1], [1]]),
        (("id,x,y", "a,1,0.5", "a,2,0.5", "b,3,2"), "regress", [[0.5], [2.0]]),
        (("id,x,y", "a,1,0.5", "a,2,1", "b,3,2"), "regress", [[[0.5], [1.0]], [[2.0]]]),
        (("id,x,y", "a,1,3", "a,2,3", "b,3,5"), "classify", [0, 1]),
        (("x,y", "1,30", "2,31", "3,34", "4,37", "5,39"), "regress", [[30.0], [31.0], [34.0], [37.0], [39.0]]),
        (("walk,1,2", "run,3,4", "walk,5,6"), None, None),
    ],
)
def test_the_task(tmp_path, lines, task, targets):
    if task is None:  # no name says what a column of a table without a header is
        found = read_sequences(table(tmp_path, *lines), target="1")
        assert (found.classes, found.targets.tolist(), found.names) == (("run", "walk"), [1, 0, 1], ("value",))
        return
    found = read_sequences(table(tmp_path, *lines))
    assert found.task == task
    plain = [one.tolist() for one in found.targets] if isinstance(found.targets, list) else found.targets.tolist()
    assert plain == targets
    assert any("task" in text for text in found.recognized)


def test_separators_headers_and_compressed_files(tmp_path):
    expected = [[1.5, 2.5], [3.5, 4.5]]
    for k, (separator, name) in enumerate([(";", "a.csv"), ("\t", "b.tsv"), ("|", "c.txt"), (",", "d.csv")]):
        lines = [separator.join(row) for row in (["label", "1", "2"], ["u", "1.5", "2.5"], ["v", "3.5", "4.5"])]
        found = read_sequences(table(tmp_path, *lines, name=name))
        assert found.x[:, :, 0].tolist() == expected, k
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress((tmp_path / "d.csv").read_bytes()))
    assert read_sequences(tmp_path / "d.csv.gz").x[:, :, 0].tolist() == expected
    (tmp_path / "B.TSV.GZ").write_bytes(gzip.compress((tmp_path / "b.tsv").read_bytes()))
    assert read_sequences(tmp_path / "B.TSV.GZ").x[:, :, 0].tolist() == expected
    found = read_sequences(table(tmp_path, '\ufeffvalue_0,"value_1",y', "1,2,3", "", "4,5,6"), task="regress")
    assert found.x[:, :, 0].tolist() == [[1, 2], [4, 5]]
    found = read_sequences(table(tmp_path, ",a_0,a_1", "0,1,2", "1,3,4"))  # with the index of a data frame
    assert found.x[:, :, 0].tolist() == [[1, 2], [3, 4]]
    assert read_sequences(table(tmp_path, "y,0.5,2", "n,1,0.25", "y,3,4"), target="1").x[0].tolist() == [[0.5], [2]]
    assert read_sequences(table(tmp_path, "1,2", "3,4"), header=True).x.tolist() == [[[3], [4]]]


def test_times_are_numbers_or_dates(tmp_path):
    lines = ["id,date,x", "a,2026-02-01,2", "a,2026-01-01,1", "b,2026-03-01 12:00,4", "b,2026-03-01T11:59:59Z,3"]
    found = read_sequences(table(tmp_path, *lines))
    assert found.x[:, :, 0].tolist() == [[1, 2], [3, 4]]
    assert (found.spans[1, 1] - found.spans[1, 0], found.spans[0, 1] - found.spans[0, 0]) == (1, 31 * 86400)


def test_the_split_that_an_npz_has(tmp_path):
    x = RNG.standard_normal((6, 4, 2))
    np.savez(tmp_path / "a.npz", X_train=x[:3], y_train=[0, 1, 0], X_val=x[3:4], y_val=[1], X_test=x[4:], y_test=[1, 0])
    found = read_sequences(tmp_path / "a.npz")
    same(found, x)
    assert {name: one.tolist() for name, one in found.parts.items()} == {
        "train": [0, 1, 2], "validation": [3], "test": [4, 5],
    }  # fmt: skip
    assert found.targets.tolist() == [0, 1, 0, 1, 1, 0]


def test_windows(tmp_path):
    """x[t] = t and the target is 10 t, so that every value says where it is from."""
    steps = np.arange(11.0)
    found = read_sequences(steps, targets=10 * steps, window=4, stride=3, horizon=1, task="regress")
    assert found.x[:, :, 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert found.targets[:, 0].tolist() == [40, 70, 100]
    assert found.spans.tolist() == [[0, 4], [3, 7], [6, 10]]
    found = read_sequences(steps, targets=10 * steps, window=4, per_step=True, task="regress")
    assert found.targets[:, :, 0].tolist() == [[0, 10, 20, 30], [40, 50, 60, 70]]
    path = write_long(tmp_path / "a.csv", [steps[:5, None], steps[5:, None]], ["x"], [["u", "v"]], ["label"])
    found = read_sequences(path, window=3, stride=1)
    assert found.x[:, 0, 0].tolist() == [0, 1, 2, 5, 6, 7, 8]  # none from one sequence into the next
    assert [found.classes[k] for k in found.targets] == list("uuuvvvv")
    assert list(found.groups) == ["s0"] * 3 + ["s1"] * 4
    assert found.ids[3] == "s1:2"  # the time of its last step


def test_windows_are_in_the_part_of_their_sequence(tmp_path):
    x = np.arange(60.0).reshape(6, 10, 1)
    y = np.arange(6) % 2
    np.savez(tmp_path / "a.npz", x_train=x[:4], y_train=y[:4], x_test=x[4:], y_test=y[4:])
    found = read_sequences(tmp_path / "a.npz", window=4, stride=2)
    owners = {name: np.unique(found.x[part] // 10).tolist() for name, part in found.parts.items()}
    assert owners == {"train": [0, 1, 2, 3], "test": [4, 5]}
    series = np.arange(20.0)
    y = series / 8
    np.savez(tmp_path / "b.npz", x_train=series[:12], y_train=y[:12], x_test=series[12:], y_test=y[12:])
    found = read_sequences(tmp_path / "b.npz", window=4, stride=1)
    assert found.x[found.parts["train"]].max() == 11  # no window from one part into the other
    assert found.x[found.parts["test"]].min() == 12
    assert len(found) == 9 + 5
    assert (found.targets[:, 0] == found.x[:, -1, 0] / 8).all()


def test_a_series_from_its_own_past(tmp_path):
    body = ([f"2026-01-{t + 1:02}", t, -t] for t in range(9))
    path = write_rows(tmp_path / "a.csv", [["date", "load", "other"], *body])
    found = read_sequences(path, window=3, stride=1, horizon=2, target="load", features=("load", "other"))
    assert found.x[0].tolist() == [[0, 0], [1, -1], [2, -2]]
    assert found.targets[:, 0].tolist() == [4, 5, 6, 7, 8]
    assert found.ids[0] == "1:2026-01-03"
    alone = write_rows(tmp_path / "b.csv", [["load"], *([t / 2] for t in range(9))])  # no time either: it is long
    found = read_sequences(alone, window=3, stride=1, horizon=1, target="load")
    assert (found.names, found.reading.layout, len(found)) == (("load",), "long", 6)
    assert "predicted from the past of 'load'" in found.recognized
    folder = tmp_path / "folder"
    folder.mkdir()
    write_rows(folder / "c.csv", [["load"], *([t] for t in range(9))])
    found = read_sequences(folder, window=3, stride=1, horizon=1, target="load", task="regress")
    assert found.targets[:, 0].tolist() == [3, 4, 5, 6, 7, 8]
    wide = write_rows(tmp_path / "d.csv", [[f"x_{t}" for t in range(9)], range(9), range(9)])
    assert read_sequences(wide, window=3).reading.layout == "wide"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["none", "some", "na", "null"], ("na", "none", "null", "some")),
        (["none", "null", "none", "null"], ("none", "null")),
        (["01", "1", "01", "10"], ("01", "1", "10")),
        (["9007199254740993", "9007199254740992", "5", "5"], ("5", "9007199254740992", "9007199254740993")),
        (["+1", "-1", "+1", "-1"], (-1, 1)),
    ],
)  # fmt: skip
def test_labels_as_they_are_written(tmp_path, labels, classes):
    path = write_rows(tmp_path / "a.csv", [["x_0", "x_1", "label"], *([n, n, label] for n, label in enumerate(labels))])
    found = read_sequences(path, task="classify")
    assert found.classes == classes
    assert [str(found.classes[k]) for k in found.targets] == [label.removeprefix("+") for label in labels]


def test_labels_of_arrays_are_exact():
    labels = np.array([2**53 + 1, 2**53, 2**53 + 1, 2**53])
    assert read_sequences(np.zeros((4, 2, 1)), targets=labels).classes == (2**53, 2**53 + 1)


def test_an_array_on_disk_with_unequal_lengths_and_targets_of_each_step(tmp_path, monkeypatch):
    x = RNG.standard_normal((4, 5, 2))
    x[1, 3:], x[2, 1:] = np.nan, np.nan
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(20).reshape(4, 5) / 8)
    first = read_sequences(tmp_path / "x.npy")
    monkeypatch.setattr(arrays, "available_memory", lambda: 0)
    second = read_sequences(tmp_path / "x.npy")
    assert isinstance(second.x, np.memmap)
    assert second.target_lengths.tolist() == [5, 3, 1, 5]
    for one, other, count in zip(first.targets, second.targets, second.target_lengths, strict=True):
        np.testing.assert_array_equal(one, other[:count])


def test_an_array_that_is_larger_than_memory_stays_on_disk(tmp_path, monkeypatch):
    x = RNG.standard_normal((6, 4, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(6) % 2)
    monkeypatch.setattr(arrays, "available_memory", lambda: 4 * 8 * x.size - 1)  # as float64
    found = read_sequences(tmp_path / "x.npy")
    assert isinstance(found.x, np.memmap)
    assert found.targets.tolist() == [0, 1, 0, 1, 0, 1]
    monkeypatch.setattr(arrays, "available_memory", lambda: 4 * 8 * x.size)
    assert not isinstance(read_sequences(tmp_path / "x.npy").x, np.memmap)


def test_many_rows(tmp_path):
    rows = "".join(f"{k // 100},{k % 100},{k}.25,{-k},{k % 7}.5\n" for k in range(100_000))
    path = tmp_path / "a.csv"
    path.write_text("id,time,a,b,c\n" + rows, encoding="utf-8")
    found = read_sequences(path)
    assert found.x.shape == (1000, 100, 3)
    assert found.x[3, 5].tolist() == [305.25, -305, 4.5]


def test_the_fingerprint_is_that_of_all_files_in_their_order(tmp_path):
    for name, content in [("a", b"12"), ("b", b"3"), ("c", b"1"), ("d", b"23")]:
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in "abcd"]
    found = {fingerprint_of_files(pair) for pair in itertools.permutations(paths, 2)}
    assert len(found) == 12
