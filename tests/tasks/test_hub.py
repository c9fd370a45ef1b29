"""Hugging Face datasets, from folders on this machine: the same code as for the hub."""

import numpy as np
import pandas as pd
import pytest

from fedmtl.errors import ScenarioError
from fedmtl.tasks.hf import quiet
from fedmtl.tasks.sources.hub import Hub


@pytest.fixture
def folder(tmp_path):
    """A parquet folder with every kind of column."""
    from datasets import ClassLabel, Dataset, Features, Image, List, Value

    pictures = [np.full((4, 6, 3), 51 * i, np.uint8) for i in range(5)]
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog", "cow"]), "a": Value("float32"),
                         "v": List(Value("float32")),
                         "r": List(Value("int32")), "who": Value("string"),
                         "hole": Value("float32")})
    with quiet():
        Dataset.from_dict({"image": pictures, "label": [0, 1, 0, 1, 0], "a": [0.0, 1, 2, 3, 4],
                           "v": [[i, 2.0 * i] for i in range(5)],
                           "r": [[0], [1, 2], [0], [0], [0]], "who": ["n2", "n10", "n2", "n1", "n1"],
                           "hole": [0.0, None, 1, 2, 3]}, features=features
                          ).to_parquet(tmp_path / "set" / "train.parquet")
    return tmp_path


@pytest.fixture
def hub(folder):
    (folder / "set").mkdir(exist_ok=True)
    return lambda **fields: Hub(dataset=str(folder / "set"), cache=str(folder / "cache"), **fields)


def test_images_labels_and_clients(hub):
    samples = hub(client="who").load(0, 0)
    assert samples.x.shape == (5, 3, 4, 6)
    assert samples.x.dtype == np.float32
    assert samples.x[:, 0, 0, 0] == pytest.approx(np.arange(5) / 5)
    assert samples.classes == ("cat", "dog", "cow")
    assert samples.y.tolist() == [0, 1, 0, 1, 0]
    assert samples.owner.tolist() == [1, 2, 1, 0, 0]
    assert samples.task == "set"


def test_columns_of_numbers(hub):
    assert hub(x=("a", "v"), scale=2.0).load(0, 0).x.tolist() == [[2 * i, 2 * i, 4 * i] for i in range(5)]
    assert hub(x="v", y="a").load(0, 0).y.tolist() == [[0], [1], [2], [3], [4]]
    assert hub(x="v", y="who").load(0, 0).classes == ("n1", "n2", "n10")


def test_text(hub):
    x = hub(x=("who", "who"), y="label", words=50, length=3).load(0, 0).x
    assert x.shape == (5, 3)
    assert x.dtype == np.int64
    assert (x[:, 0] == x[:, 1]).all()
    assert (x[0] == x[2]).all()
    assert not x[:, 2].any()


@pytest.mark.parametrize(("fields", "key", "problem"), [
    ({"x": "a", "words": 9}, "tasks.x", "does not hold text"),
    ({"x": "imag"}, "tasks.x", "did you mean 'image'"), ({"y": "lable"}, "tasks.y", "did you mean 'label'"),
    ({"client": "whom"}, "tasks.client", "'who'"), ({"part": "tests"}, "tasks.part", "train"),
    ({"x": "r"}, "tasks.x", "different shapes"), ({"x": "hole"}, "tasks.x", "row 1"),
    ({"x": "who"}, "tasks.x", "numbers"),
    ({"subset": "none"}, "tasks.dataset", "none"),
])
def test_wrong_names_and_kinds(hub, fields, key, problem):
    with pytest.raises(ScenarioError, match=problem) as caught:
        hub(**fields).load(0, 0)
    assert caught.value.key == key


def test_csv_folder(tmp_path):
    (tmp_path / "set").mkdir()
    pd.DataFrame({"a": [1, 2, 3], "label": [2, 1, 2]}).to_csv(tmp_path / "set" / "test.csv", index=False)
    samples = Hub(dataset=str(tmp_path / "set"), x="a", part="test", cache=str(tmp_path / "cache")).load(0, 0)
    assert samples.x.tolist() == [[1], [2], [3]]
    assert samples.classes == ("1", "2")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ScenarioError, match=r"tasks\.dataset: .* cannot be loaded"):
        Hub(dataset=str(tmp_path / "nothing")).load(0, 0)


def test_a_hub_out_of_reach(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ScenarioError, match="cannot be reached") as caught:
        Hub(dataset="nobody/nothing", cache=str(tmp_path)).load(0, 0)
    assert caught.value.key == "tasks.dataset"
