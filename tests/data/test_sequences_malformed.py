"""Every kind of bad file ends with one line that says the file, the row and the column."""

import gzip
import re

import numpy as np
import pytest

from lstm_np.data import DatasetError, SequenceImputer, read_sequences

pytestmark = pytest.mark.quick


def refused(line, call):
    """The error's text, with * for any text."""
    with pytest.raises(DatasetError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    pattern = ".*".join(map(re.escape, line.split("*")))
    assert re.fullmatch(pattern, text), text


TABLES = {
    "a.csv: line 3, column 'x': found 'two', expected a number; *": ("id,x,y", "a,1,0", "b,two,1"),
    "a.csv: line 3, column 'x': found '1,5', expected a number; write a decimal point": ("id;x;y", "a;1;0", "b;1,5;1"),
    "a.csv: line 2, column 'x': found '1_0', expected a number; *": ("id,x,y", "a,1_0,0", "b,2,1"),
    "a.csv: line 3, column 'x': found 'inf', expected a finite number": ("id,x,y", "a,1,0", "b,inf,1"),
    "a.csv: line 2: found 2 cells, expected 3 (separated by ',')": ("id,x,y", "a,1", "b,2,1"),
    "a.csv: line 5: found 4 cells, expected 3 (separated by ',')": ('id,x,y', '"a', 'b",1,0', "", "b,2,1,"),
    "a.csv: line 1: two columns are called 'x'; rename one": ("x,x,y", "1,1,0"),
    "a.csv: line 1: column 2 has no name; name it in the header": ("x,,y", "1,1,0"),
    "a.csv: line 2: unexpected end of data": ("id,x,y", '"a,1,0'),
    "a.csv: the file is empty": ("", ""),
    "a.csv: only a header, no row of data": ("id,x,y",),
    "a.csv: line 3, column 'id': the cell is empty, expected what the row belongs to": (
        "id,x,y", "a,1,0", ",2,1", "a,1,0"),
    "a.csv: line 4, column 'time': the same time as in line 2 of this sequence": (
        "id,time,x,y", "a,0,1,0", "a,1,1,0", "a,0,1,0"),
    "a.csv: line 3, column 'time': the same time as in line 2 of this sequence; name the column *": (
        "time,x,y", "0,1,0", "0,1,0"),
    "a.csv: line 3, column 'time': found '3.1.2026', expected a number or a date such as 2026-01-31T12:00": (
        "id,time,x,y", "a,2026-01-01,1,0", "a,3.1.2026,2,0"),
    "a.csv: line 3, column 'date': no time, expected a number or a date such as 2026-01-31T12:00": (
        "id,date,x,y", "a,2026-01-01,1,0", "a,,2,0"),
    "a.csv: line 2, column 'date': no time, expected a number or a date such as 2026-01-31T12:00": (
        "id,date,x,y", "a,NaT,1,0", "a,2026-01-01,2,0"),
    "a.csv: line 3, column 'date': found 'today', expected a number or a date such as 2026-01-31T12:00": (
        "id,date,x,y", "a,2026-01-01,1,0", "a,today,2,0"),
    "a.csv: line 4, column 'y': the target is missing; *": ("id,x,y", "a,1,0.5", "b,1,1.5", "c,1,NA"),
    "a.csv: line 3, column 'time': no time, expected a number or a date *": ("id,time,x,y", "a,0,1,0", "a,,2,0"),
    "a.csv: line 3, column 'label': the target is missing; fill it in, or leave the row out": (
        "id,x,label", "a,1,u", "b,1,?"),
    "a.csv: line 3, column 'y': found inf, expected a finite target": ("id,x,y", "a,1,0.5", "b,1,inf"),
    "a.csv: no column is left for the features; there are: id, y": ("id,y", "a,1", "a,1"),
    "a.csv: line 3, column 'x_0': the whole row is empty, expected a sequence": ("x_0,x_1,y", "1,2,0", ",,1"),
    "a.csv: no column for step 1 of the feature 'b', which others have": ("a_0,a_1,b_0,y", "1,2,3,0"),
    "a.csv: line 3, column 'group': 'q', where the sequence has 'p'": ("id,group,x,y", "a,p,1,0", "a,q,1,0", "b,q,1,1"),
}  # fmt: skip


@pytest.mark.parametrize("line", TABLES)
def test_tables(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("\n".join(TABLES[line]), encoding="utf-8")
    refused(line, lambda: read_sequences("a.csv"))


GOOD = "id,time,x,z,y,group\na,0,1,2,0,p\na,1,1,3,0,p\nb,0,1,2,1,q\n"
OPTIONS = {
    "a.csv: no column 'speed' (feature); there are: id, time, x, z, y, group": {"features": "speed"},
    "a.csv: no column 'speed' (target); there are: id, time, x, z, y, group": {"target": "speed"},
    "a.csv: no column 'speed' (id); there are: id, time, x, z, y, group": {"id": "speed"},
    "a.csv: the column 'x' is a feature and something else; it can be one, or with a window and a horizon *": {
        "features": "x", "target": "x"},
    "a.csv: the column 'group' is a feature and something else; it can be one": {"features": "group", "group": "group"},
    "a.csv: labels says nothing about a table; leave it out": {"labels": "b.csv"},
    "a.csv: the column 'x' is named for two things; it can be one": {"target": "x", "group": "x"},
    "a.csv: classify takes one target, found 2: x, y": {"target": ("x", "y"), "task": "classify"},
    "a.csv: line 4, column 'y': found the class 1, expected one of 0, 2": {"classes": (0, 2)},
    "a.csv: line 3, column 'group': found 'p', expected a number": {"target": "group", "task": "regress"},
    "a.csv: line 3, column 'z': the target changes within a sequence, expected one for the sequence": {
        "target": "z", "task": "classify", "id": "group", "features": "x"},
    "a.csv: no sequence has the 3 steps of a window; the longest has 2": {"window": 3},
    "a.csv: no sequence has the 2 steps and 1 more of a window; the longest has 2": {"window": 2, "horizon": 1},
    "a.csv: a horizon and targets of each step do not go together": {"window": 1, "horizon": 1, "per_step": True},
    "layout must be long or wide, found 'tall'": {"layout": "tall"},
    "task must be classify or regress or tag, found 'sort'": {"task": "sort"},
    "window must be a whole number of at least 1, found 0": {"window": 0},
    "stride and horizon are those of windows; give window, the steps of one, too": {"stride": 2},
    "delimiter must be one character, found ', '": {"delimiter": ", "},
    "targets of a file stand in it, or in a second file (labels); name columns with target": {"targets": [0, 1]},
}  # fmt: skip


@pytest.mark.parametrize("line", OPTIONS)
def test_options(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(GOOD, encoding="utf-8")
    refused(line, lambda: read_sequences("a.csv", **OPTIONS[line]))


def test_missing_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("id,time,x,z,y\na,1,1,2,0\na,0,,2,0\nb,0,1,?,1\n", encoding="utf-8")
    line = "a.csv: line 3, column 'x': the value is missing, and 1 others are; fill them in (*), or leave them out"
    refused(line, lambda: SequenceImputer().transform(read_sequences("a.csv")))


HEADER = "@problemName P\n@timeStamps false\n@dimensions 2\n@equalLength false\n@classLabel true a b\n@data\n"
TS = {
    "a.ts: line 7, dimension 2, value 2: found 'x', expected a number or ?": HEADER + "1,2:3,x:a\n",
    "a.ts: line 8: found 1 dimensions (between colons), expected 2": HEADER + "1,2:3,4:a\n1,2:a\n",
    "a.ts: line 7: dimension 2 has 3 values, dimension 1 has 2; lengths must agree": HEADER + "1,2:3,4,5:a\n",
    "a.ts: line 7, class label: found the class 'c', expected one of a, b": HEADER + "1,2:3,4:c\n",
    "a.ts: line 7, class label: the target is missing; *": HEADER + "1,2:3,4:?\n",
    "a.ts: line 7, dimension 1, value 1: found inf, expected a finite number": HEADER + "inf,2:3,4:a\n",
    "a.ts: line 2: sequences with timestamps are not read; write the values alone": "@missing true\n@timeStamps true\n",
    "a.ts: line 1: @univariate must be true or false, found 'maybe'": "@univariate maybe\n@data\n1,2\n",
    "a.ts: line 1: @seriesLength must be a whole number, found 'ten'": "@seriesLength ten\n@data\n1,2\n",
    "a.ts: line 4: found 3 values, expected 2, *": "@univariate true\n@equalLength true\n@data\n1,2,3\n",
    "a.ts: line 1: found '1,2:a', expected @data before the first sequence": "1,2:a\n",
    "a.ts: no line @data, expected a .ts file of the time series archives": "@problemName P\n",
    "a.ts: no line of data behind @data": "@data\n\n",
    "a.ts: line 2, target: the target is missing; *": "@targetLabel true\n@data\n",
}  # fmt: skip


@pytest.mark.parametrize("line", TS)
def test_ts(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    content = TS[line]
    if "found 3 values" in line:
        content = content.replace("@equalLength true\n", "@equalLength true\n@seriesLength 2\n").replace("# \n", "")
        line = line.replace("line 4", "line 5")
    if "line 2, target" in line:
        content, line = content + "1,2:?\n", line.replace("line 2", "line 3")
    (tmp_path / "a.ts").write_text(content, encoding="utf-8")
    refused(line.replace("@seriesLength must", "@serieslength must"), lambda: read_sequences("a.ts"))


X = np.arange(24.0).reshape(4, 3, 2)
ARRAYS = {
    "a.npz: no array called x (or data, sequences); there are: z": {"z": X},
    "a.npz: x is float64 (4,), expected numbers (N, T, D), or (N, T) for one feature": {"x": np.arange(4.0)},
    "a.npz: x is <U1 (1, 1, 1), expected numbers (N, T, D), or (N, T) for one feature": {"x": np.array([[["a"]]])},
    "a.npz: x has shape (0, 3, 2), expected at least one sequence, step and feature": {"x": X[:0]},
    "a.npz: found an infinite value at [0, 1, 0], expected finite numbers": {"x": np.where(X == 2, np.inf, X)},
    "a.npz: sequence 1 has no value but NaN": {"x": np.where((X >= 6) & (X < 12), np.nan, X)},
    "a.npz: y has shape (3,), expected (N,), (N, M), (N, T) or (N, T, M) for N = 4, T = 3": {"x": X, "y": np.arange(3)},
    "a.npz: y has shape (4, 2, 1), expected (N, T, M) for T = 3": {"x": X, "y": X[:, :2, :1]},
    "a.npz: lengths must be whole numbers (4,) of 1 to 3, the steps of x": {"x": X, "lengths": np.array([1, 2, 3, 4])},
    "a.npz: found 3 names of features, x has 2 features": {"x": X, "names": np.array(["a", "b", "c"])},
    "a.npz: group has shape (2,), expected one for each of 4 sequences": {"x": X, "groups": np.arange(2)},
    "a.npz: sequence 2, target 'y': the target is missing; *": {"x": X, "y": np.array([1, 2, np.nan, 0.5])},
    "a.npz: sequence 1, step 2, target 'y': the target is missing; *": {
        "x": X, "y": np.where(np.arange(12).reshape(4, 3) == 5, np.nan, 0.5)},
    "a.npz: holds Python objects, which only pickle reads; expected arrays of numbers or text": {
        "x": np.array([X[0], None], object)},
    "a.npz: y is there for train, x for train, test": {"x_train": X, "x_test": X, "y_train": np.arange(4)},
    "a.npz: x_train and the others do not fit together (*)": {"x_train": X, "x_test": X[:, :2]},
    "a.npz: y_train and x_train differ in length: (5,), (4,)": {
        "x_train": X, "x_test": X, "y_train": np.arange(5), "y_test": np.arange(3)},
    "a.npz: names of features have shape (), expected one for each feature": {"x": X, "names": np.array("ab")},
    "a.npz: time has no value for sequence 1": {"x": X, "times": np.array([0, np.nan, 1, 2])},
    "a.npz: time: found what is no array of numbers (*)": {"x": X, "times": np.array(["a", "b", "c", "d"])},
}  # fmt: skip


@pytest.mark.parametrize("line", ARRAYS)
def test_npz(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", **ARRAYS[line])
    refused(line, lambda: read_sequences("a.npz"))


def test_damaged_and_missing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=X)
    np.save("b.npy", X)
    for name in ("a.npz", "b.npy"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    refused("a.npz: cannot be read as an .npz file, or is cut short (*)", lambda: read_sequences("a.npz"))
    refused("b.npy: cannot be read as an .npy file, or is cut short (*)", lambda: read_sequences("b.npy"))
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"x_0,y\n1,2\n" * 100)[:30])
    refused("c.csv.gz: no gzip file, or cut short (*)", lambda: read_sequences("c.csv.gz"))
    (tmp_path / "d.csv").write_bytes("x_0,y\n1,größe\n".encode("latin-1"))
    line = "d.csv: line 2: found the byte 0xf6, expected UTF-8 text; save the file as UTF-8"
    refused(line, lambda: read_sequences("d.csv"))
    refused("e.csv: no such file or folder", lambda: read_sequences("e.csv"))
    (tmp_path / "f.xlsx").touch()
    line = "f.xlsx: what kind of file this is cannot be seen from its name; expected *"
    refused(line, lambda: read_sequences("f.xlsx"))


def test_files_of_another_kind_than_their_name_and_damaged_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", X)
    (tmp_path / "a.npy").rename("a.npz")
    refused("a.npz: holds one array, as an .npy file does; call it .npy", lambda: read_sequences("a.npz"))
    np.savez("b.npz", x=X)
    (tmp_path / "b.npz").rename("b.npy")
    refused("b.npy: holds several arrays, as an .npz file does; call it .npz", lambda: read_sequences("b.npy"))
    np.savez_compressed("c.npz", x=np.random.default_rng(0).standard_normal((40, 3, 2)))
    content = bytearray((tmp_path / "c.npz").read_bytes())
    begins = 30 + int.from_bytes(content[26:28], "little") + int.from_bytes(content[28:30], "little")
    content[begins] = 0xFF  # a block of a kind that there is not
    (tmp_path / "c.npz").write_bytes(content)
    refused("c.npz: cannot be read as an .npz file, or is cut short (*)", lambda: read_sequences("c.npz"))
    np.savez("d.npz", x=X)
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[6] |= 1  # encrypted, says the file's own header, and so does that of the folder at its end
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "d.npz").write_bytes(content)
    refused("d.npz: cannot be read as an .npz file, or is cut short (*password*)", lambda: read_sequences("d.npz"))
    content = bytearray(gzip.compress(b"x_0,y\n1,2\n" * 100))
    content[10] = 0xFF
    (tmp_path / "e.csv.gz").write_bytes(content)
    refused("e.csv.gz: no gzip file, or cut short (*)", lambda: read_sequences("e.csv.gz"))
    (tmp_path / "f.npy.gz").touch()
    refused("f.npy.gz: an .npy file that is compressed; decompress it (gunzip)", lambda: read_sequences("f.npy.gz"))
    np.save("g.npy", np.array(1.0))
    for window in (None, 2):
        line = "g.npy: x is float64 (), expected numbers (N, T, D), or (N, T) for one feature"
        refused(line, lambda window=window: read_sequences("g.npy", window=window))


IGNORED = {
    "a.npz: ignore says nothing about .npz files; leave it out": {"ignore": "x0"},
    "a.npz: labels says nothing about .npz files; leave it out": {"labels": "y.npy"},
    "a.npy: ignore says nothing about .npy files; leave it out": {"ignore": "x0"},
    "a.npy: target names columns of a CSV file with the targets (labels); leave it out": {"target": "y"},
    "a.ts: target says nothing about .ts files; leave it out": {"target": "y"},
    "a.ts: ignore says nothing about .ts files; leave it out": {"ignore": "x0"},
    "all: group says nothing about a folder; leave it out": {"group": "p"},
}


@pytest.mark.parametrize("line", IGNORED)
def test_what_says_nothing_about_a_file(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=X)
    np.save("a.npy", X)
    (tmp_path / "a.ts").write_text(HEADER + "1,2:3,4:a\n", encoding="utf-8")
    (tmp_path / "all").mkdir()
    refused(line, lambda: read_sequences(line.partition(":")[0], **IGNORED[line]))


def test_two_columns_of_a_frame_with_one_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([[1.0, 2.0]], columns=["x", "x"])
    refused("the data frame: two columns are called 'x'; rename one", lambda: read_sequences(frame))


def test_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all").mkdir()
    refused("all: no CSV file in this folder or in its subfolders; it holds nothing", lambda: read_sequences("all"))
    (tmp_path / "all/a.csv").write_text("u,v\n1,2\n3,4\n", encoding="utf-8")
    (tmp_path / "all/b.csv").write_text("u,w\n1,2\n3,4\n", encoding="utf-8")
    refused("all/b.csv: no column 'v', which all/a.csv has", lambda: read_sequences("all"))
    (tmp_path / "all/b.csv").write_text("u,v\n1,2\n3,x\n", encoding="utf-8")
    refused("all/b.csv: line 3, column 'v': found 'x', expected a number*", lambda: read_sequences("all"))
    (tmp_path / "all/b.csv").write_text("u,v\n1,2\n3,4\n", encoding="utf-8")
    line = "all/a.csv: the column 'u' is a feature and something else; it can be one, or *"
    refused(line, lambda: read_sequences("all", features="u", target="u"))
    (tmp_path / "all/labels.csv").write_text("file,label\na.csv,k\n", encoding="utf-8")
    line = "all/labels.csv: no row for the file b.csv; expected its name in the column 'file'"
    refused(line, lambda: read_sequences("all"))
    (tmp_path / "all/labels.csv").write_text("file,label\na.csv,k\na.csv,l\n", encoding="utf-8")
    refused("all/labels.csv: line 3, column 'file': 'a.csv' stands twice", lambda: read_sequences("all"))
    (tmp_path / "all/labels.csv").write_text("file,label\na.csv,k\nb.csv,\n", encoding="utf-8")
    refused("all/labels.csv: line 3, column 'label': the target is missing; *", lambda: read_sequences("all"))
    assert read_sequences("all", target=()).task is None
