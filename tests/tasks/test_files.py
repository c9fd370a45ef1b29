"""Files of one's own: npz, csv and parquet; the real sets; and what is wrong with broken ones."""

import re
import tomllib
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmtl
from fedmtl.errors import ScenarioError
from fedmtl.registry import build, kebab
from fedmtl.scenario import from_table
from fedmtl.tasks.federation import make_federation
from fedmtl.tasks.sources.digits import Digits
from fedmtl.tasks.sources.file import File
from fedmtl.tasks.sources.text import tokens_of
from fedmtl.tasks.task import Source, Split, Transform

DATA = Path(__file__).parents[3] / "shared" / "data"
FRAME = pd.DataFrame({"f1": [1.0, 2, 3, 4], "f2": [5, 6, 7, 8], "g": [0.5, 0.25, 0.125, 0.0], "y": ["b", "a", "b", "a"],
                      "who": ["u10", "u9", "u9", "u10"], "job": [2, 2, 1, 2]})


def file(path, **table):
    keys = {kebab(key): value for key, value in table.items()}
    return build(Source, "fedmtl.tasks.sources", "file", {"path": str(path), **keys}, "tasks", name_key="source")


def refused(path, **table):
    with pytest.raises(ScenarioError) as caught:
        file(path, **table).load(0, 0)
    return caught.value.key, str(caught.value)


@pytest.fixture(params=["csv", "parquet", "npz"])
def columns(request, tmp_path):
    """The same six columns in each format."""
    path = tmp_path / f"d.{request.param}"
    if request.param == "csv":
        FRAME.to_csv(path, index=False)
    elif request.param == "parquet":
        FRAME.to_parquet(path)
    else:
        np.savez(path, **{name: FRAME[name].to_numpy(dtype=str if name in ("y", "who") else None) for name in FRAME})
    return path


def test_columns_patterns_labels_and_clients(columns):
    samples = file(columns, x="f*", client="who").load(0, 0)
    assert samples.x.dtype == np.float32
    assert samples.x.tolist() == [[1, 5], [2, 6], [3, 7], [4, 8]]
    assert samples.classes == ("a", "b")
    assert samples.y.tolist() == [1, 0, 1, 0]
    assert samples.owner.tolist() == [1, 0, 0, 1]
    assert samples.task == "d"
    assert file(columns, x=["g", "f1"]).load(0, 0).x[1].tolist() == [0.25, 2]
    assert file(columns, x="f1", scale=0.5).load(0, 0).x.tolist() == [[0.5], [1], [1.5], [2]]


def test_clients_and_tasks_together(columns):
    assert file(columns, x="f1", client="who", task="job").load(0, 0).owner.tolist() == [2, 1, 0, 2]
    assert file(columns, x="f1", task="job").load(0, 0).owner.tolist() == [1, 1, 0, 1]


def test_tasks_have_names(columns):
    both = file(columns, x="f1", client="who", task="job").load(0, 0)
    assert both.tasks == ("d-1", "d-2", "d-2")
    assert [both.tasks[owner] for owner in both.owner] == ["d-2", "d-2", "d-1", "d-2"]
    assert file(columns, x="f1", task="job").load(0, 0).tasks == ("d-1", "d-2")
    assert file(columns, x="f1", client="who").load(0, 0).tasks == ()


def sparse_parts(**change):
    return {"f_data": np.array([3, 4], np.uint8), "f_indices": np.array([1, 0], np.uint16), "f_indptr": np.array([0, 1, 1, 2]),
            "f_shape": np.array([3, 2]), "y": np.array([0, 1, 1])} | change


def test_sparse_matrices_are_read_as_one(tmp_path):
    np.savez(tmp_path / "d.npz", **sparse_parts())
    samples = file(tmp_path / "d.npz", x="f").load(0, 0)
    assert samples.x.tolist() == [[0, 3], [0, 0], [4, 0]]
    assert samples.x.dtype == np.float32
    assert "did you mean 'f" in refused(tmp_path / "d.npz", x="ff")[1]


@pytest.mark.parametrize("change", [
    {"f_indices": np.array([2, 0])}, {"f_indptr": np.array([0, 1, 2])}, {"f_indptr": np.array([0, 2, 1, 2])},
    {"f_shape": np.array([3, 2, 1])}, {"f_shape": np.array(3)}, {"f_data": np.array([1])}])
def test_sparse_parts_that_do_not_fit_are_refused(tmp_path, change):
    np.savez(tmp_path / "d.npz", **sparse_parts(**change))
    key, message = refused(tmp_path / "d.npz", x="f")
    assert key == "tasks.x"
    assert "sparse matrix 'f' do not fit" in message


def test_targets(columns):
    assert file(columns, x="f1", y="f2").load(0, 0).classes == ("5", "6", "7", "8")
    assert file(columns, x="f1", y="f2", target="value").load(0, 0).y.tolist() == [[5], [6], [7], [8]]
    assert file(columns, x="f1", y="g").load(0, 0).classes == ()
    assert file(columns, x="f1", y="g", target="class").load(0, 0).classes == ("0.0", "0.125", "0.25", "0.5")
    assert file(columns, x="f1", y=["g", "f2"]).load(0, 0).y.shape == (4, 2)


@pytest.mark.parametrize(("table", "key", "problem"), [
    ({"x": "f9"}, "tasks.x", "did you mean 'f"), ({"x": ["f1", "h*"]}, "tasks.x", "no 'h*'"),
    ({"x": "f1", "y": "yy"}, "tasks.y", "did you mean 'y'"), ({"x": "f1", "client": "whom"}, "tasks.client", "'who'"),
    ({"x": "f1", "task": "jbo"}, "tasks.task", "'job'"), ({"x": "who"}, "tasks.x", "does not hold numbers"),
    ({"x": "f1", "y": "who", "target": "value"}, "tasks.y", "does not hold numbers"),
    ({"x": "f1", "y": ["f1", "g"], "target": "class"}, "tasks.y", "one column"),
    ({"x": "f1", "scale": "f9"}, "tasks.scale", "no 'f9'"), ({"x": "f1", "scale": "f2"}, "tasks.scale", "one number"),
    ({"x": "f1", "scale": 1e300}, "tasks.path", "x holds inf"),
    ({"x": "f1", "scale": float("nan")}, "tasks.scale", "scale holds nan"),
    ({"x": "f1", "target": "cass"}, "tasks.target", "class"),
])
def test_wrong_names_and_kinds(columns, table, key, problem):
    got, message = refused(columns, **table)
    assert got == key
    assert problem in message


def test_words_become_tokens(columns):
    made = file(columns, x=["who", "y"], y="job", words=100, length=3).load(0, 0).x
    words = ((b"u10", b"b"), (b"u9", b"a"), (b"u9", b"b"), (b"u10", b"a"))
    said = [[1 + zlib.crc32(word) % 99 for word in row] + [0] for row in words]
    assert made.dtype == np.int64
    assert made.tolist() == said
    assert file(columns, x="who", y="job", words=100, length=1).load(0, 0).x[:, 0].tolist() == [row[0] for row in said]


def test_words_are_in_lower_case_and_without_marks():
    texts = np.array(["Le Cœur, it's: 2nd!", "le cœur IT s 2nd", "", "¿?"], object)
    made = tokens_of([("text", texts)], 1000, 4, 1.0)
    assert made[0].tolist() == made[1].tolist()
    assert (made[0] > 0).all()
    assert not made[2:].any()


@pytest.mark.parametrize(("table", "key", "problem"), [
    ({"x": "f1", "words": 9}, "tasks.x", "'f1' does not hold text but float64"), ({"words": 9}, "tasks.x", "which columns hold"),
    ({"x": "who", "words": 1}, "tasks.words", "two at least"), ({"x": "who", "words": -1}, "tasks.words", "0"),
    ({"x": "who", "words": 9, "scale": 2.0}, "tasks.scale", "no numbers"), ({"x": "who"}, "tasks.x", "tasks.words reads text"),
])
def test_text_that_is_none(columns, table, key, problem):
    got, message = refused(columns, **{"y": "job", **table})
    assert got == key
    assert problem in message


def test_x_may_be_left_out(tmp_path):
    FRAME.to_csv(tmp_path / "d.csv", index=False)
    assert file(tmp_path / "d.csv", client="who", task="job").load(0, 0).x.shape == (4, 3)
    FRAME[["y", "who"]].to_csv(tmp_path / "e.csv", index=False)
    assert refused(tmp_path / "e.csv")[0] == "tasks.x"
    np.savez(tmp_path / "d.npz", x=np.ones((3, 2, 2), np.uint8), y=[True, False, True])
    samples = file(tmp_path / "d.npz").load(0, 0)
    assert samples.x.shape == (3, 2, 2)
    assert samples.classes == ("False", "True")


def test_parquet_may_hold_lists(tmp_path):
    pd.DataFrame({"x": [[1.0, 2.0], [3.0, 4.0]], "y": [0, 1]}).to_parquet(tmp_path / "d.parquet")
    assert file(tmp_path / "d.parquet", x="x").load(0, 0).x.tolist() == [[1, 2], [3, 4]]
    pd.DataFrame({"x": [[1.0, 2.0], [3.0]], "y": [0, 1]}).to_parquet(tmp_path / "d.parquet")
    assert refused(tmp_path / "d.parquet", x="x")[0] == "tasks.path"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(("column", "value", "key"), [
    ("f1", np.nan, "tasks.x"), ("f1", np.inf, "tasks.x"), ("y", None, "tasks.y"), ("who", None, "tasks.client"),
    ("g", np.nan, ""),
])
def test_holes_are_named_by_column_and_row(tmp_path, suffix, column, value, key):
    frame, path = FRAME.copy(), tmp_path / f"d.{suffix}"
    frame.loc[2, column] = value
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    if not key:
        assert file(path, x="f*", client="who").load(0, 0).x.shape == (4, 2)
        return
    got, message = refused(path, x="f*", client="who")
    assert got == key
    assert f"column '{column}'" in message
    assert "row 2" in message


def test_holes_and_lengths_in_npz(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=np.array([[0, 1], [np.nan, 2]]), y=[0, 1])
    key, message = refused(path)
    assert key == "tasks.x"
    assert "array 'x' holds nan in row 1, place [0] (1 such values" in message
    np.savez(path, x=np.array([[0, 1], [1e300, 2]]), y=[0, 1])
    assert refused(path)[0] == "tasks.x"
    np.savez(path, x=np.ones((3, 2)), y=[0, 1])
    assert refused(path) == ("tasks.path", "tasks.path: unequal numbers of rows: x has 3, y has 2")
    np.savez(path, x=np.ones((2, 2)), y=[0, 1], who=[1, 2, 3])
    assert "client has 3" in refused(path, client="who")[1]
    np.savez(path, x=np.float32(3), y=[0, 1])
    assert "single value" in refused(path)[1]
    np.savez(path, x=np.ones((0, 2)), y=np.ones(0))
    assert refused(path)[0] == "tasks.path"


def test_missing_and_broken_files(tmp_path):
    np.savez(tmp_path / "school.npz", x=np.ones((2000, 2)), y=np.zeros(2000))
    key, message = refused(tmp_path / "scool.npz")
    assert key == "tasks.path"
    assert "did you mean 'school.npz'" in message
    assert "no file" in refused(tmp_path / "no" / "where.csv")[1]
    assert ".parquet" in refused(tmp_path / "d.xlsx")[1]
    whole = (tmp_path / "school.npz").read_bytes()
    np.save(tmp_path / "one.npy", np.ones(3))
    for name, content in (("cut.npz", whole[:400]), ("text.npz", b"not a zip"), ("none.npz", b""), ("none.csv", b""),
                          ("array.npz", (tmp_path / "one.npy").read_bytes()), ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n"),
                          ("bytes.csv", b"a,\xff\xfe\n1,2\n"), ("text.parquet", b"PAR1"),
                          ("flipped.npz", whole[:300] + bytes([whole[300] ^ 255]) + whole[301:])):
        (tmp_path / name).write_bytes(content)
        key, message = refused(tmp_path / name)
        assert key == "tasks.path", name
        assert name in message


def test_pickles_are_never_opened(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([{"a": 1}, None], dtype=object), y=[0, 1])
    key, message = refused(tmp_path / "d.npz")
    assert key == "tasks.path"
    assert "allow_pickle=False" in message


REAL = {
    "school": ({"task": "task", "target": "value"}, (15362, 28), (15362, 1), 139, 0),
    "landmine": ({"task": "task"}, (14820, 9), (14820,), 29, 2),
    "vehicle_sensor_1860": ({"task": "task"}, (1860, 100), (1860,), 23, 2),
    "uci_har_30users": ({"client": "subject", "scale": "scale"}, (10299, 9, 128), (10299,), 30, 6),
    "parkinsons_telemonitoring": ({"client": "subject"}, (5875, 19), (5875, 2), 42, 0),
    "mnist": ({"x": "x_test", "y": "y_test", "scale": 1 / 255}, (10000, 28, 28), (10000,), 0, 10),
    "sarcos_4449": ({}, (4449, 21), (4449, 7), 0, 0),
    "fsdd_logmel": ({"client": "speaker"}, (3000, 32, 64), (3000,), 6, 10),
    "omniglot_small": ({"y": "character", "client": "drawer", "task": "alphabet"}, (4840, 28, 28), (4840,), 160, 47),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sets(name):
    path = DATA / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    table, x, y, owners, classes = REAL[name]
    samples = file(path, **table).load(0, 0)
    assert (samples.x.shape, samples.y.shape, len(samples.classes)) == (x, y, classes)
    assert len(np.unique(samples.owner)) == owners if owners else samples.owner is None
    federation = make_federation(file(path, **table), [], [], clients=owners or 10, val=0.1, test=0.25, seed=0)
    assert federation.clients == (owners or 10)
    assert len(federation.rows) == len(samples)
    if "task" in table:
        assert len(samples.tasks) == owners
        assert samples.tasks[:2] == tuple(f"{name}-{task}" for task in (0, 1))
    if name == "mnist":
        assert samples.x.max() == 1
    if name == "uci_har_30users":
        assert file(path, x="features", client="subject").load(0, 0).x.shape == (10299, 54)
        assert 1 < np.abs(samples.x).max() < 10


def test_defaults_need_only_a_path(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.ones((4, 2)), y=[0.5, 1, 2, 3])
    assert File(path=str(tmp_path / "d.npz")).load(0, 0).y.shape == (4, 1)


DOCUMENT = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
TABLES = [tomllib.loads(block)["tasks"] for block in re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)]
DOCUMENTED = {
    "school.npz": (15362, 139), "landmine.npz": (14820, 29), "vehicle_sensor_1860.npz": (1860, 23),
    "uci_har_30users.npz": (10299, 30),
    "parkinsons_telemonitoring.npz": (5875, 42), "omniglot_small.npz": (4840, 160), "sarcos_4449.npz": (4449, 14),
    "tox21_sider.npz": (7831, 12), "fashion_mnist.npz": (60000, 100), "mnist.npz": (60000, 100), "fsdd_logmel.npz": (3000, 6)}


def component(base, what, table):
    options = {key: value for key, value in table.items() if key != "kind"}
    return build(base, f"fedmtl.tasks.{what}s", table["kind"], options, f"tasks.{what}", name_key="kind")


def test_each_set_is_documented():
    assert [table["path"] for table in TABLES if "path" in table] == list(DOCUMENTED)


@pytest.mark.parametrize("table", [table for table in TABLES if "path" in table], ids=lambda table: table["path"])
def test_documented_tables_work(table):
    if not (DATA / table["path"]).exists():
        pytest.skip(f"{DATA / table['path']} is not here")
    beside = ("source", "path", "clients", "objective", "split", "transform")
    own = {key: value for key, value in table.items() if key not in beside}
    samples = file(DATA / table["path"], **own).load(table["clients"], 0)
    rows, clients = DOCUMENTED[table["path"]]
    assert len(samples) == rows
    default = [{"kind": "iid" if samples.owner is None else "natural"}]
    [split] = (component(Split, "split", one) for one in table.get("split", default))
    owned = split.assign(samples, table["clients"], 0)
    assert len(owned) == clients
    for transform in (component(Transform, "transform", one) for one in table.get("transform", [])):
        transform.check(samples)
        assert transform.apply(samples.take(owned[3]), 3, 0).y.shape == (len(owned[3]), 1)
    if table["path"] == "tox21_sider.npz":
        assert (samples.x.shape, samples.y.shape, np.unique(samples.y).tolist()) == ((7831, 2048), (7831, 12), [-1, 0, 1])


def test_documented_transforms_are_right():
    tables = [one for table in TABLES if "path" not in table for one in table["transform"]]
    assert [one["kind"] for one in tables] == ["subset", "target", "clusters"]
    for table in tables:
        component(Transform, "transform", table).check(Digits().load(1, 0))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_numbers_may_be_missing_in_y_alone(tmp_path, suffix):
    path = tmp_path / f"d.{suffix}"
    frame = pd.DataFrame({"x": [1.0, 2, 3], "a": [0.5, np.nan, 1], "b": [1, 0, np.nan]})
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path) if suffix == "parquet" else np.savez(
        path, **{name: frame[name] for name in frame})
    samples = file(path, x="x", y=["a", "b"]).load(0, 0)
    np.testing.assert_array_equal(samples.y, np.array([[0.5, 1], [np.nan, 0], [1, np.nan]], np.float32))
    assert samples.classes == ()
    np.testing.assert_array_equal(file(path, x="x", y="b").load(0, 0).y, np.array([[1], [0], [np.nan]], np.float32))
    assert refused(path, x="x", y="b", target="class")[0] == "tasks.y"
    assert refused(path, x="a", y="b")[0] == "tasks.x"
    assert refused(path, x="x", y="a", client="b")[0] == "tasks.client"


def test_whole_numbers_that_may_be_missing(tmp_path):
    pd.DataFrame({"x": [1.0, 2], "y": pd.array([3, None], dtype="Int64")}).to_parquet(tmp_path / "d.parquet")
    assert file(tmp_path / "d.parquet", x="x").load(0, 0).y.tolist()[0] == [3]
    assert np.isnan(file(tmp_path / "d.parquet", x="x").load(0, 0).y[1, 0])


def test_infinite_targets_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.ones((2, 1)), y=[0.5, np.inf])
    assert refused(tmp_path / "d.npz")[0] == "tasks.y"


@pytest.mark.parametrize(("objective", "fits"), [
    ({"kind": "regression", "missing": True}, True), ("binary", False), ({"kind": "absolute"}, False)])
def test_missing_targets_reach_the_objective(tmp_path, objective, fits):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(40, 2))
    y[rng.random(y.shape) < 0.2] = np.nan
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(40, 3)), y=y, who=np.arange(40) % 2)
    table = {"name": "t", "rounds": 2, "algorithm": {"name": "fedper"}, "runtime": {"kind": "inline"}, "model": {"hidden": [4]},
             "tasks": {"source": "file", "path": str(tmp_path / "d.npz"), "client": "who", "clients": 0, "objective": objective}}
    if not fits:
        with pytest.raises(ScenarioError, match=r"tasks\.objective: .*(missing = true|one target a row)"):
            fedmtl.run(from_table(table), out=tmp_path / "run", report=False)
        return
    found = fedmtl.run(from_table(table), out=tmp_path / "run", report=False).summary["test"]
    assert 0 < found["rmse"]["mean"] < 10


def test_labels_of_unlike_tasks_are_numbered_apart(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.ones((6, 1)), y=["cat", "red", "dog", "blue", "green", "cat"], job=[5, 9, 5, 9, 9, 5])
    apart = file(tmp_path / "d.npz", task="job", own_labels=True).load(0, 0)
    assert apart.classes == ("0", "1", "2")
    assert apart.y.tolist() == [0, 2, 1, 0, 1, 0]
    assert apart.spaces == (("cat", "dog"), ("blue", "green", "red"))
    assert len(file(tmp_path / "d.npz", task="job").load(0, 0).classes) == 5
    assert refused(tmp_path / "d.npz", own_labels=True)[0] == "tasks.own-labels"
    assert refused(tmp_path / "d.npz", y="job", x="x", task="y", target="value", own_labels=True)[0] == "tasks.own-labels"


def test_names_that_stand_in_arrays_of_their_own(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.ones((3, 1)), y=[2, 0, 2], job=[1, 1, 0], kinds=["a", "b", "c"], jobs=["up", "down"],
             twice=["a", "a", "b"])
    samples = file(tmp_path / "d.npz", task="job", class_names="kinds", task_names="jobs").load(0, 0)
    assert samples.classes == ("a", "c")
    assert samples.tasks == ("d-up", "d-down")
    for table, key, problem in (({"class_names": "kind"}, "class-names", "did you mean 'kinds'"),
                                ({"class_names": "jobs"}, "class-names", "names 0 to 1, but there is 2"),
                                ({"class_names": "twice"}, "class-names", "different names"),
                                ({"class_names": "x"}, "class-names", "different names"),
                                ({"class_names": "kinds", "target": "value"}, "class-names", "numbers, not of classes"),
                                ({"class_names": "kinds", "own_labels": True, "task": "job"}, "own-labels", "no class-names"),
                                ({"task_names": "jobs"}, "task-names", "no column of tasks")):
        got, message = refused(tmp_path / "d.npz", **table)
        assert got == f"tasks.{key}"
        assert problem in message


def test_scale_may_be_a_number_a_column(columns):
    assert file(columns, x=["f1", "f2"], scale=[2, 0.5]).load(0, 0).x[0].tolist() == [2, 2.5]
    key, message = refused(columns, x=["f1", "f2"], scale=[1, 2, 3])
    assert key == "tasks.scale"
    assert "one for each of [2]" in message


def test_a_missing_file_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused("data/school.npz")[1]
    assert f"neither beside the scenario nor in {tmp_path}" in message
    assert "tasks.path=FILE" in message
