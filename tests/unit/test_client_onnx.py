"""The client that learns in closed form: the same model however images are spread, and only what is new looked at."""

from __future__ import annotations

from federation.client.flags import ClientSettings
from federation.data.partition_file import Examples
from federation.data.partitions import Partitioning
from federation.flags import Failure
from federation.server.strategy import DeviceFedAvg
from federation.wire.moments import are_moments

import numpy as np
import pytest
from fakes import FakeClient, fit_result
from flwr.common import parameters_to_ndarrays
from test_photos import BLUE, WHITE, take

import client_onnx as client

COLUMNS = client.FEATURES + 1


def random_features(number: int, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Features that tell classes apart, and the classes."""
    random = np.random.default_rng(0)
    y = random.integers(0, num_classes, number)
    x = random.random((number, COLUMNS), np.float32) + 0.2 * (np.arange(COLUMNS) % num_classes == y[:, None])
    x[:, -1] = 1
    return x.astype(np.float32), y


def averaged(parts: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    results = [(FakeClient("one"), fit_result(client.moments(x, y, 4), len(y))) for x, y in parts]
    return parameters_to_ndarrays(DeviceFedAvg().aggregate_fit(1, results, [])[0])


def test_the_solution_is_that_of_a_ridge_regression_on_all_images():
    x, y = random_features(300)
    weights = client.solve(client.moments(x, y, 4))
    ridge = client.RIDGE * np.square(x).mean() * len(x)  # on x itself, with nothing rounded
    expected = np.linalg.solve(x.T.astype(float) @ x + ridge * np.eye(COLUMNS), x.T @ np.eye(4)[y])
    assert np.abs(x @ weights - x @ expected).max() < 0.01
    assert ((x @ weights).argmax(1) == y).mean() > 0.95


def test_images_spread_unevenly_give_the_model_of_all_and_the_same_bits_in_any_order():
    x, y = random_features(300)
    order = np.argsort(y)  # one class a client, and of very different sizes
    parts = [(x[rows], y[rows]) for rows in np.split(order, [3, 100, 290])]
    together, apart = averaged([(x, y)]), averaged(parts)
    assert are_moments(apart)
    for whole, average in zip(together, apart):
        assert np.abs(whole.astype(float) - average).max() < 0.01
    shuffled = averaged([parts[i] for i in (2, 0, 3, 1)])
    assert [array.tobytes() for array in shuffled] == [array.tobytes() for array in apart]


def test_a_class_without_an_image_is_never_seen():
    x, y = random_features(50)
    model = client.Model(4)
    client.set_parameters(model, client.moments(x[y != 2], y[y != 2], 4))
    assert 2 not in (x @ model.weights).argmax(1) and {0, 1, 3} <= {*(x @ model.weights).argmax(1)}
    with pytest.raises(ValueError, match="the model has arrays of shapes"):
        client.set_parameters(model, client.moments(x, y, 5))
    client.set_parameters(model, client.get_parameters(model))  # if the first round brought nothing
    assert np.isinf(model.weights[-1]).all() and np.isfinite(model.weights[:-1]).all()


@pytest.fixture
def opened(monkeypatch) -> list[None]:
    """Grows each time that the backbone is loaded; nothing has been looked at."""
    opened, open_backbone = [], client.open_backbone
    monkeypatch.setattr(client, "seen", {})
    monkeypatch.setattr(client, "open_backbone", lambda: (opened.append(None), open_backbone())[1])
    return opened


def test_only_what_is_new_is_looked_at(opened):
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), dtype=np.uint8)
    examples = Examples(images, np.arange(6))
    first, _ = client.look(Examples(images[:4], np.arange(4)))
    looked = []
    x, y = client.look(examples, lambda new: (looked.append(len(new)), new)[1])
    assert looked == [2] and x.shape == (6, COLUMNS) and x.dtype == np.float32 and y.tolist() == [*range(6)]
    assert (x[:4] == first).all() and (x[:, -1] == 1).all() and len(np.unique(x[:, 0])) == 6
    assert (client.look(examples)[0] == x).all() and len(opened) == 2


def test_a_fit_that_is_over_in_time_counts_with_what_it_has_seen(opened):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    one = client.FlowerClient("cifar10", *[Examples(images, np.arange(5))] * 2)
    nothing = one.get_parameters({})
    for number in range(1, 6):
        assert one.fit(nothing, {"fit_seconds": 1e-9})[1] == number  # one more each time
    parameters, number, _ = one.fit(nothing, {})
    assert number == 5 and [array.dtype for array in parameters] == [np.float16] * 2
    loss, number, metrics = one.evaluate(parameters, {})
    assert 0 < loss < 1 and number == 5 and metrics["accuracy"] == 1


def test_a_client_with_photos(tmp_path, opened, capsys):
    settings = ClientSettings(Partitioning("photos", tmp_path, 0), cid=3)
    one = client.make_client(settings)
    assert one.choose_classes(["red", "blue", "nothing"]) == ["red", "blue", "nothing"]
    with pytest.raises(Failure, match="there are no images to learn from here yet"):
        one.fit([], {})
    for i in range(20):
        take(tmp_path / f"red/{i}.png", (255 - i, 0, 0))
        take(tmp_path / f"blue/{i}.png", (0, 0, 255 - i))
    (tmp_path / "blue/none.png").write_text("no image")
    parameters, number, _ = one.fit([], {})
    loss, tested, metrics = one.evaluate(parameters, {})
    assert number + tested == 40 and metrics["accuracy"] == 1
    assert capsys.readouterr().out.count("none.png is skipped") == 1
    take(tmp_path / "blue/new.png", BLUE, size=(9, 9))
    take(tmp_path / "other/new.png", WHITE)
    one.fit(parameters, {})
    assert len(one.train_set.labels) + len(one.validation_set.labels) == 42  # with the one that is none
    with np.load(tmp_path / "classifier.npz") as kept:
        x, y = client.look(one.photos.read_all())
        assert (kept["classes"][(x @ kept["weights"]).argmax(1)] == np.array(["red", "blue", "nothing"])[y]).all()


@pytest.mark.parametrize("kind", ["missing", "damaged", "another network"])
def test_a_backbone_that_cannot_be_used(kind, tmp_path, monkeypatch):
    path = tmp_path / "backbone.onnx"
    if kind == "damaged":
        path.write_bytes(client.BACKBONE.read_bytes()[:5000])
    elif kind == "another network":
        monkeypatch.setattr(client, "BACKBONE_FEATURES", 512)
        path.write_bytes(client.BACKBONE.read_bytes())
    monkeypatch.setattr(client, "BACKBONE", path)
    reasons = {"missing": "No such file or directory", "another network": ", not 512 features"}
    with pytest.raises(Failure, match=f"Cannot use {path}: .*{reasons.get(kind, '')}") as error:
        client.build_model("mnist")
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
