"""The wrapper around the script's client: results sent again, errors, metrics, refusals."""

from __future__ import annotations

import contextlib
import re

from federation.client import wrapper
from federation.client.power import Meter
from federation.client.wrapper import ClientWrapper
from federation.flags import Failure
from federation.wire.handshake import Identity, Refused, check, class_list, fingerprint, question
from federation.wire.models import DIFFERENCE, Outbound, decode, lacks_the_model

import numpy as np
import pytest
from fakes import MODEL, SOMEBODY, TOKEN, encoded
from flwr.client import NumPyClient
from flwr.common import Code, EvaluateIns, FitIns, GetParametersIns, GetPropertiesIns, parameters_to_ndarrays


class Trainee(NumPyClient):
    """A client that adds one and counts."""

    def __init__(self) -> None:
        self.fits = self.evaluations = 0
        self.metrics: dict = {}
        self.error: Exception | None = None

    def get_parameters(self, config):
        return MODEL

    def fit(self, parameters, config):
        self.fits += 1
        if self.error is not None:
            raise self.error
        return [array + 1 for array in parameters], 20, self.metrics

    def evaluate(self, parameters, config):
        self.evaluations += 1
        if self.error is not None:
            raise self.error
        return 0.25, 5, self.metrics


@pytest.fixture
def trainee() -> Trainee:
    return Trainee()


@pytest.fixture
def client(trainee, monkeypatch) -> ClientWrapper:
    monkeypatch.setattr(wrapper, "vital_signs", lambda: {"peak_memory_mb": 123.5})
    return ClientWrapper(trainee, SOMEBODY, TOKEN, Meter())


def fit_instruction(server_round=1, arrays=MODEL, **config) -> FitIns:
    return FitIns(encoded(arrays), {"server_round": server_round, **config})


def test_a_fit(client, trainee, capsys):
    trainee.metrics = {"train_loss": 0.5}
    result = client.answer("fit", fit_instruction(3))
    assert result.status.code == Code.OK and result.num_examples == 20
    for array, original in zip(parameters_to_ndarrays(result.parameters), MODEL):
        assert (array == original + 1).all()
    assert 0 <= result.metrics.pop("seconds") < 5
    assert result.metrics == {"train_loss": 0.5, "peak_memory_mb": 123.5}
    assert re.fullmatch(r"round 3: fit on 20 examples, train loss 0\.5, \d\.\d s\n", capsys.readouterr().out)


def test_what_a_fit_costs_is_told(client, trainee, capsys):
    class Meter(contextlib.ExitStack):
        """Knows whether it was on."""

        def figures(self, seconds):
            assert trainee.fits == 1 and 0 <= seconds < 5
            return {"energy_j": 12.345, "power_w": 3.0} if self.was_on else {}

    client.meter = Meter()
    client.meter.callback(lambda: setattr(client.meter, "was_on", trainee.fits == 1))
    trainee.metrics = {"energy_j": 1e9}
    metrics = client.answer("fit", fit_instruction()).metrics
    assert (metrics["energy_j"], metrics["power_w"]) == (12.345, 3.0)
    assert capsys.readouterr().out.endswith(" s, 12.3 J at 3.0 W\n")


def test_an_evaluation(client, trainee, capsys):
    trainee.metrics = {"accuracy": 0.75, "note": "no number"}
    result = client.answer("evaluate", EvaluateIns(encoded(MODEL), {}))
    assert (result.status.code, result.loss, result.num_examples) == (Code.OK, 0.25, 5)
    assert 0 <= result.metrics.pop("seconds") < 5
    assert result.metrics == {"accuracy": 0.75, "note": "no number", "peak_memory_mb": 123.5}
    expected = r"round \?: evaluate on 5 examples, loss 0\.25, accuracy 0\.75, \d\.\d s\n"
    assert re.fullmatch(expected, capsys.readouterr().out)


def test_the_handshake(client):
    asked = question()
    result = client.answer("get_properties", GetPropertiesIns(asked))
    assert result.status.code == Code.OK
    check(TOKEN, asked, result.properties, SOMEBODY)
    assert Identity.read(result.properties) == SOMEBODY
    with pytest.raises(Refused, match="^go$") as refused:
        client.answer("get_properties", GetPropertiesIns({"refused": "go", "again": True}))
    assert refused.value.again is True


class Chooser(Trainee):
    """A client that learns any classes; a model without a column for each is not its own."""

    classes = ["cup", "spoon"]

    def choose_classes(self, told):
        if told == ["no", "way"]:
            raise Failure("there is no folder")
        self.classes = told or self.classes
        return self.classes

    def get_parameters(self, config):
        return [np.zeros((4, len(self.classes)), np.float32)]


def test_classes_are_those_that_the_server_tells_and_the_model_has_them():
    client = ClientWrapper(Chooser(), SOMEBODY, TOKEN, Meter())
    for told, classes in (([], ["cup", "spoon"]), (["a", "b", "c"], ["a", "b", "c"])):
        asked = question(told)
        result = client.answer("get_properties", GetPropertiesIns(asked))
        identity = Identity.read(result.properties)
        check(TOKEN, asked, result.properties, identity)
        assert identity.classes == class_list(classes)
        assert identity.model == fingerprint([np.zeros((4, len(classes)), np.float32)])
    with pytest.raises(Failure, match="there is no folder"):  # it ends with that
        client.answer("get_properties", GetPropertiesIns(question(["no", "way"])))


def test_the_model_that_all_begin_with_need_not_be_sent(client, trainee):
    client.answer("get_properties", GetPropertiesIns(question()))
    assert lacks_the_model(client.answer("fit", FitIns(Outbound(MODEL, False).digest, {})))
    trainee.same_start = True
    client.answer("get_properties", GetPropertiesIns(question()))
    assert client.answer("fit", FitIns(Outbound(MODEL, False).digest, {})).status.code == Code.OK


def test_what_a_script_cannot_do_is_told_without_a_traceback(client, trainee, capsys):
    trainee.error = Failure("there are no images to learn from here yet")
    assert client.answer("fit", fit_instruction()).status.message == "there are no images to learn from here yet"
    shown = capsys.readouterr()
    assert shown.out == "there are no images to learn from here yet\n" and not shown.err


def test_the_same_instruction_again_is_not_trained_again(client, trainee, capsys):
    result = client.answer("fit", fit_instruction(2, epochs=3))
    assert "sending" not in capsys.readouterr().out
    for _ in range(2):
        assert client.answer("fit", fit_instruction(2, epochs=3)) is result
        assert capsys.readouterr().out == "round 2: sending the result again\n"
    assert trainee.fits == 1


@pytest.mark.parametrize(
    "other",
    [
        fit_instruction(2, epochs=3),
        fit_instruction(1, epochs=4),
        fit_instruction(1),
        fit_instruction(1, arrays=[MODEL[0], MODEL[1] + 1], epochs=3),
        fit_instruction(1, arrays=MODEL[::-1], epochs=3),
    ],
)
def test_another_instruction_is_trained(client, trainee, other):
    first = client.answer("fit", fit_instruction(1, epochs=3))
    assert client.answer("fit", other) is not first
    assert trainee.fits == 2
    client.answer("fit", fit_instruction(1, epochs=3))  # only the last result is kept
    assert trainee.fits == 3


def test_no_result_is_kept_in_memory_longer_than_needed(client, trainee, monkeypatch):
    client.answer("fit", fit_instruction(1))
    during = []
    fit = client.client.fit
    monkeypatch.setattr(client.client, "fit", lambda ins: (during.append(client.last_result), fit(ins))[1])
    client.answer("fit", fit_instruction(2))
    assert during == [None] and client.last_result is not None
    client.answer("evaluate", EvaluateIns(encoded(MODEL), {}))
    assert client.last_result is None


@pytest.mark.parametrize("half_precision", [False, True])
def test_a_model_that_it_has_need_not_be_sent_again(client, trainee, half_precision):
    outbound = Outbound(MODEL, half_precision)
    config = {"server_round": 1}
    lacking = client.answer("fit", FitIns(outbound.digest, config))
    assert lacks_the_model(lacking) and lacking.status.code != Code.OK and trainee.fits == 0
    assert lacks_the_model(client.answer("evaluate", EvaluateIns(outbound.digest, config)))
    client.answer("evaluate", EvaluateIns(outbound.shortest, config))
    result = client.answer("fit", FitIns(outbound.digest, config))
    for array, original in zip(decode(result.parameters, MODEL), MODEL, strict=True):
        assert (array == original + 1).all()
    assert (result.parameters.tensor_type == DIFFERENCE) == half_precision
    # In which form the same is asked again does not matter.
    assert client.answer("fit", FitIns(outbound.digest, config)) is result
    assert client.answer("fit", FitIns(outbound.shortest, config)) is result
    assert trainee.fits == 1
    assert lacks_the_model(client.answer("fit", FitIns(outbound.digest, {"server_round": 2})))  # it is not kept


def test_the_initial_model_that_it_gave_is_one_that_it_has(client):
    result = client.answer("get_parameters", GetParametersIns({}))
    assert result.status.code == Code.OK and result.parameters == encoded(MODEL)
    assert client.answer("fit", FitIns(Outbound(MODEL, False).digest, {})).status.code == Code.OK


def test_a_fit_that_changes_the_arrays_it_was_given_changes_no_difference(client, trainee, monkeypatch):
    def fit(parameters, config):
        for array in parameters:
            array += 1
        return parameters, 20, {}

    monkeypatch.setattr(trainee, "fit", fit)
    result = client.answer("fit", FitIns(Outbound(MODEL, half_precision=True).shortest, {}))
    assert [array.tolist() for array in decode(result.parameters, MODEL)] == [(a + 1).tolist() for a in MODEL]


@pytest.mark.parametrize("task", ["fit", "evaluate"])
def test_an_error_is_told_to_both_sides_and_the_same_can_be_asked_again(client, trainee, task, capsys):
    outbound = Outbound(MODEL, half_precision=False)
    trainee.error = RuntimeError("the disk is on fire")
    result = client.answer(task, FitIns(outbound.whole, {}))
    assert result.status.code != Code.OK and not lacks_the_model(result)
    assert result.status.message == "RuntimeError: the disk is on fire"
    assert (result.num_examples, result.metrics) == (0, {})
    error = capsys.readouterr().err
    assert "Traceback" in error and "the disk is on fire" in error
    trainee.error = None
    assert client.answer(task, FitIns(outbound.digest, {})).status.code == Code.OK  # it still has the model


@pytest.mark.parametrize("task", ["fit", "evaluate"])
def test_metrics_that_flower_can_send(client, trainee, task):
    trainee.metrics = {
        "float32": np.float32(0.5), "int64": np.int64(3), "bool": np.bool_(True), "text": "x", "bytes": b"x",
        "python": 2, "none": None, "list": [1.0], "array": np.ones(3), "complex": np.complex64(1j),
    }  # fmt: skip
    metrics = client.answer(task, fit_instruction()).metrics
    del metrics["seconds"], metrics["peak_memory_mb"]
    assert metrics == {"float32": 0.5, "int64": 3, "bool": True, "text": "x", "bytes": b"x", "python": 2}
    assert [type(value) for value in metrics.values()] == [float, int, bool, str, bytes, int]
