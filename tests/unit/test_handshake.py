"""The handshake: what a stranger may say about itself, the proof of the token, who fits whom."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

from federation.wire.handshake import (
    MAX_TEXT,
    Identity,
    Refused,
    answer,
    as_number,
    check,
    class_list,
    fingerprint,
    mismatch,
    printable,
    proof,
    question,
    told_classes,
)

import numpy as np
import pytest
from fakes import SOMEBODY, TOKEN, identity


def test_an_identity_is_read_from_properties():
    assert Identity.read({**asdict(SOMEBODY), "proof": "more", "does not": 1}) == SOMEBODY
    assert str(SOMEBODY) == "client 0 on pi0 (a board)"


@pytest.mark.parametrize("name", [field.name for field in fields(Identity)])
def test_nobody_without_each_of_the_properties_in_its_type(name):
    properties = asdict(SOMEBODY)
    wrong = [b"bytes", 1.0, None, ["a"], *(["1", True] if isinstance(properties[name], int) else [1])]
    for value in [value for value in wrong if type(value) is not type(properties[name])]:
        assert Identity.read({**properties, name: value}) is None
    del properties[name]
    assert Identity.read(properties) is None


def test_texts_of_strangers_cannot_play_tricks_on_a_terminal():
    read = Identity.read({**asdict(SOMEBODY), "device": "a\x1b[2J\nb\r\u202e" + "c" * 1000, "script": "naïve ✓"})
    assert read.device == "a [2J b  " + "c" * (MAX_TEXT - 9)
    assert read.script == "naïve ✓"
    with pytest.raises(Refused) as refused:
        answer({"refused": "go\x1b]0;away\x07" + "!" * 1000}, SOMEBODY, TOKEN)
    assert str(refused.value).startswith("go ]0;away !!!") and len(str(refused.value)) == MAX_TEXT
    assert refused.value.again is False


def test_the_right_token_is_proved_and_does_not_travel():
    asked = question()
    answered = answer(asked, SOMEBODY, TOKEN)
    check(TOKEN, asked, answered, Identity.read(answered))
    assert TOKEN.decode() not in str(answered)
    check(None, asked, answered, SOMEBODY)  # a server without a token takes anybody
    check(None, asked, {}, None)


def test_no_token():
    asked = question()
    answered = answer(asked, SOMEBODY, None)
    for shown in ({}, {"proof": 1}, {"proof": b"bytes"}):
        with pytest.raises(Refused, match="it has no token, but this server requires one"):
            check(TOKEN, asked, {**answered, **shown}, SOMEBODY)
    with pytest.raises(Refused, match="it has no token"):
        check(TOKEN, asked, {"proof": proof(TOKEN, asked["nonce"], SOMEBODY)}, None)


def test_a_proof_that_is_recorded_made_up_or_made_with_another_token_is_worth_nothing():
    recorded = answer(question(), SOMEBODY, TOKEN)
    asked = question()
    with pytest.raises(Refused, match="it has another token than this server"):
        check(TOKEN, asked, answer(asked, SOMEBODY, TOKEN + b" "), SOMEBODY)
    for shown in (recorded, *({"proof": made_up} for made_up in ("", "0" * 64, "no hexadecimal: ñ"))):
        with pytest.raises(Refused, match="it has another token than this server"):
            check(TOKEN, question(), {**recorded, **shown}, SOMEBODY)


@pytest.mark.parametrize("name", [field.name for field in fields(Identity)])
def test_a_proof_holds_for_one_identity(name):
    asked = question()
    answered = answer(asked, SOMEBODY, TOKEN)
    value = answered[name]
    answered[name] = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else f"{value}!"
    with pytest.raises(Refused, match="it has another token than this server"):
        check(TOKEN, asked, answered, Identity.read(answered))


OURS = "that of client_pytorch.py (2 arrays, 8 numbers, 00c0ffee)"
MISFITS = [  # the newcomer, the member, the sentence
    ({"device": "a Jetson", "script": "another.py", "versions": "x", "keeps_model": True}, {}, None),
    ({"dataset": "cifar10"}, {}, "it has cifar10, this federation mnist: start it with --mnist"),
    ({}, {"dataset": "cifar10"}, "it has mnist, this federation cifar10: start it without --mnist"),
    ({"num_clients": 9}, {}, "it has 9 partitions, this federation 50: start it with --num_clients 50"),
    ({"alpha": "1"}, {}, "it was started with --alpha 1, the others without --alpha: start it without --alpha"),
    ({}, {"alpha": "1"}, "it was started without --alpha, the others with --alpha 1: start it with --alpha 1"),
    (
        {"classes": '["cat"]'},
        {},
        'its classes are ["cat"], this federation\'s those of mnist: make its partition again with these',
    ),
    (
        {"model": "odd", "script": "client_tf.py"},
        {},
        f"it trains the model of client_tf.py (odd), this federation {OURS}: start client_pytorch.py",
    ),
    (
        {"model": "odd"},
        {},
        "its model has odd, this federation's 2 arrays, 8 numbers, 00c0ffee: use the others' client_pytorch.py",
    ),
    (
        {"script": "client_onnx.py", "dataset": "photos", "model": "moments", "num_clients": 0},
        {},
        f"it trains the model of client_onnx.py (moments), this federation {OURS}: start client_pytorch.py",
    ),
    (
        {"dataset": "photos"},
        {"dataset": "cifar10"},
        "it has photos, this federation cifar10: start it without --photos",
    ),
    ({}, {"dataset": "photos"}, "it has mnist, this federation photos: start it with --photos"),
    (
        {"dataset": "photos", "classes": '["cup", "fork"]'},
        {"dataset": "photos", "classes": '["cup", "spoon"]'},
        'its classes are ["cup", "fork"], this federation\'s ["cup", "spoon"]: name them on the server (--classes)',
    ),
]


@pytest.mark.parametrize(("theirs", "ours", "sentence"), MISFITS)
def test_what_has_to_be_the_same_and_what_to_type(theirs, ours, sentence):
    assert mismatch(identity(1, **theirs), identity(0, **ours)) == sentence


def test_a_list_of_classes_is_another_text_for_other_names():
    assert class_list([]) == "" and class_list(["cat", "Bär"]) == '["cat", "Bär"]'
    others = [["cat", "dog"], ["dog", "cat"], ["cat, dog"], ["cat", "dog", ""], ["cat ", "dog"]]
    assert len({class_list(names) for names in others}) == len(others)
    long = [f"{i} {'x' * 100}\u202e" for i in range(9)]
    assert class_list(long) != class_list([*long, "and one more"])
    assert printable(class_list(long)) == class_list(long)  # as the server reads it


def test_classes_are_told_in_a_question_and_those_of_a_strange_server_are_refused():
    names = [f"Bär {i}" for i in range(100)]
    assert told_classes(question(names)) == names and told_classes(question()) == []
    for strange in (
        "[]",
        '["one"]',
        '["a", "../b"]',
        '{"a": 1}',
        "no JSON",
        3,
        '["a", "a"]',
        json.dumps(["x", *names]),
    ):
        with pytest.raises(ValueError):
            told_classes({"nonce": "0", "classes": strange})


def test_a_fingerprint_tells_models_apart_by_shapes_and_types():
    model = [np.zeros((3, 2), np.float32), np.zeros(4, np.float32)]
    others = [
        [np.zeros((2, 3), np.float32), np.zeros(4, np.float32)],
        [np.zeros((3, 2), np.float32), np.zeros(4, np.float64)],
        model[::-1],
        [np.zeros(10, np.float32)],
        [],
    ]
    assert len({fingerprint(arrays) for arrays in (model, *others)}) == 6
    assert fingerprint([array + 1 for array in model]) == fingerprint(model)
    assert fingerprint(model).startswith("2 arrays, 10 numbers, ")


def test_numbers():
    assert [as_number(value) for value in (0, -2.5, 2**63)] == [0, -2.5, 2**63]
    nonsense = None, True, "1", b"1", float("nan"), float("inf"), [1.0]
    assert [as_number(value) for value in nonsense] == [None] * len(nonsense)
