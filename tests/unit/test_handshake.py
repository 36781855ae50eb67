"""The handshake: what a stranger may say about itself, the proof of the token, who fits whom."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, replace

from federation.wire.handshake import (
    MAX_TEXT,
    Identity,
    Refused,
    answer,
    check,
    class_list,
    fingerprint,
    mismatch,
    printable,
    proof,
    question,
    refusal,
)

import numpy as np
import pytest
from fakes import SOMEBODY, TOKEN, identity


def test_an_identity_is_read_from_properties():
    assert Identity.read({**asdict(SOMEBODY), "proof": "more", "does not": 1}) == SOMEBODY
    assert str(SOMEBODY) == "client 0 on pi0 (a board)"


@pytest.mark.parametrize("name", sorted(asdict(SOMEBODY).keys() - {"alpha", "classes", "versions", "understands"}))
def test_nobody_without_each_of_the_properties(name):
    properties = asdict(SOMEBODY)
    del properties[name]
    assert Identity.read(properties) is None


def test_an_older_version_has_even_partitions_of_the_data_sets_classes():
    properties = asdict(SOMEBODY)
    del properties["alpha"], properties["classes"], properties["versions"]
    assert Identity.read(properties) == replace(SOMEBODY, alpha="", classes="")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cid", True),
        ("cid", 1.0),
        ("cid", "1"),
        ("num_clients", False),
        ("device", ["pi0"]),
        ("instance", b"bytes"),
        ("script", 7),
        ("model", None),
        ("alpha", 0.3),
        ("classes", ["cat", "dog"]),
    ],
)
def test_nobody_with_a_property_of_another_type(name, value):
    assert Identity.read({**asdict(SOMEBODY), name: value}) is None


def test_a_plain_flower_client_is_nobody():
    assert Identity.read({}) is None


def test_texts_of_strangers_cannot_play_tricks_on_a_terminal():
    read = Identity.read({**asdict(SOMEBODY), "device": "a\x1b[2J\nb\r\u202e" + "c" * 1000, "script": "naïve ✓"})
    assert read.device == "a [2J b  " + "c" * (MAX_TEXT - 9)
    assert read.script == "naïve ✓"
    assert printable("tab\tand\0null\x7f") == "tab and null "


def test_a_question_is_never_asked_twice():
    assert len({question()["nonce"] for _ in range(100)}) == 100
    assert len(question()["nonce"]) == 32


def test_the_right_token_is_proved_and_does_not_travel():
    asked = question()
    answered = answer(asked, SOMEBODY, TOKEN)
    check(TOKEN, asked, answered, Identity.read(answered))
    assert TOKEN.decode() not in str(answered)


def test_a_server_without_a_token_takes_anybody():
    asked = question()
    for token in (None, TOKEN):
        answered = answer(asked, SOMEBODY, token)
        check(None, asked, answered, Identity.read(answered))
    check(None, asked, {}, None)


def test_no_token():
    asked = question()
    answered = answer(asked, SOMEBODY, None)
    assert "proof" not in answered
    for shown in ({}, {"proof": 1}, {"proof": b"bytes"}):
        with pytest.raises(Refused, match="it has no token, and this server wants one"):
            check(TOKEN, asked, {**answered, **shown}, SOMEBODY)
    with pytest.raises(Refused, match="it has no token"):
        check(TOKEN, asked, {"proof": proof(TOKEN, asked["nonce"], SOMEBODY)}, None)


@pytest.mark.parametrize("token", [b"the secret of another family", TOKEN + b" ", b""])
def test_another_token(token):
    asked = question()
    with pytest.raises(Refused, match="it has another token than this server"):
        check(TOKEN, asked, answer(asked, SOMEBODY, token), SOMEBODY)


@pytest.mark.parametrize("shown", ["", "0" * 64, "no hexadecimal: ñ"])
def test_a_made_up_proof(shown):
    with pytest.raises(Refused, match="it has another token than this server"):
        check(TOKEN, question(), {**asdict(SOMEBODY), "proof": shown}, SOMEBODY)


def test_a_recorded_answer_is_worth_nothing_for_the_next_question():
    recorded = answer(question(), SOMEBODY, TOKEN)
    with pytest.raises(Refused, match="it has another token than this server"):
        check(TOKEN, question(), recorded, SOMEBODY)


def test_versions_with_fewer_properties_have_the_same_proof():
    today = replace(SOMEBODY, versions="Python 3.11", understands="digest")
    assert proof(TOKEN, "a nonce", today) == proof(TOKEN, "a nonce", replace(today, understands=""))
    first = 0, "pi0 (a board)", "first start of 0", "client_pytorch.py", "mnist", 50, "2 arrays, 8 numbers, 00c0ffee"
    message = json.dumps(["a nonce", *first])  # before --alpha
    expected = hmac.new(TOKEN, message.encode(), hashlib.sha256).hexdigest()
    assert proof(TOKEN, "a nonce", SOMEBODY) == expected


@pytest.mark.parametrize("name", sorted(asdict(SOMEBODY).keys() - {"understands"}))
def test_a_proof_holds_for_one_identity(name):
    asked = question()
    answered = answer(asked, SOMEBODY, TOKEN)
    value = answered[name]
    answered[name] = value + 1 if isinstance(value, int) else f"{value}!"
    with pytest.raises(Refused, match="it has another token than this server"):
        check(TOKEN, asked, answered, Identity.read(answered))


@pytest.mark.parametrize("again", [False, True])
def test_a_client_hears_that_it_is_refused(again):
    with pytest.raises(Refused) as refused:
        answer(refusal(Refused("its --cid is taken", again)), SOMEBODY, None)
    assert str(refused.value) == "refused by the server: its --cid is taken"
    assert refused.value.again is again


def test_a_refusal_by_a_stranger_is_printable_and_final():
    with pytest.raises(Refused) as refused:
        answer({"refused": "go\x1b]0;away\x07" + "!" * 1000}, SOMEBODY, TOKEN)
    assert str(refused.value).startswith("go ]0;away !!!") and len(str(refused.value)) == MAX_TEXT
    assert refused.value.again is False


MISFITS = {
    "dataset": ("cifar10", "it has cifar10, this federation mnist"),
    "num_clients": (
        10,
        "it cuts the data set into 10 partitions (--num_clients), this federation into 50",
    ),
    "alpha": ("0.3", "it cuts the data set with --alpha 0.3, this federation with no --alpha"),
    "classes": ("cat, dog", "its classes are cat, dog; this federation's are those of mnist"),
    "model": (
        "another",
        "it trains the model of client_tf.py (another), this federation that of client_pytorch.py "
        "(2 arrays, 8 numbers, 00c0ffee)",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_has_to_be_the_same(name):
    value, sentence = MISFITS[name]
    assert mismatch(identity(1, script="client_tf.py", **{name: value}), SOMEBODY) == sentence


@pytest.mark.parametrize(
    ("ours", "theirs", "sentence"),
    [
        ({"alpha": "0.3"}, {}, "it cuts the data set with no --alpha, this federation with --alpha 0.3"),
        ({"alpha": "0.3"}, {"alpha": "0.1"}, "it cuts the data set with --alpha 0.1, this federation with --alpha 0.3"),
        ({"classes": "cat, dog"}, {}, "its classes are those of mnist; this federation's are cat, dog"),
        ({"classes": "a, b"}, {"classes": "a, c"}, "its classes are a, c; this federation's are a, b"),
    ],
)
def test_how_both_cut_and_what_they_tell_apart(ours, theirs, sentence):
    assert mismatch(identity(1, **theirs), identity(0, **ours)) == sentence


def test_a_list_of_classes_is_another_text_for_other_names():
    assert class_list([]) == ""
    assert class_list(["cat", "dog"]) == "cat, dog"
    long = [f"{i} {'x' * 100}" for i in range(9)]
    others = [
        ["cat", "dog"], ["dog", "cat"], ["cat, dog"], ["cat", "dog", ""], ["cat\u202e", "dog"], ["cat ", "dog"],
        ["cat\x1b", "dog"], long, [*long, "y"], [*long[:-1], "y"], ["\udce4", "a"],
    ]  # fmt: skip
    texts = [class_list(names) for names in others]
    assert len(set(texts)) == len(texts)
    assert all(printable(text) == text for text in texts)  # as the server reads it


def test_what_may_differ():
    assert mismatch(SOMEBODY, SOMEBODY) is None
    assert mismatch(identity(7, device="a Jetson", instance="x", script="another.py"), SOMEBODY) is None


def test_a_fingerprint_tells_models_apart():
    model = [np.zeros((3, 2), np.float32), np.zeros(4, np.float32)]
    others = [
        [np.zeros((2, 3), np.float32), np.zeros(4, np.float32)],
        [np.zeros((3, 2), np.float32), np.zeros(4, np.float64)],
        [np.zeros(4, np.float32), np.zeros((3, 2), np.float32)],
        [np.zeros(10, np.float32)],
        [],
    ]
    assert len({fingerprint(arrays) for arrays in (model, *others)}) == 6
    assert fingerprint(model).startswith("2 arrays, 10 numbers, ")


def test_a_fingerprint_does_not_depend_on_the_numbers():
    model = [np.zeros((3, 2), np.float32)]
    assert fingerprint(model) == fingerprint([array + 1 for array in model])
