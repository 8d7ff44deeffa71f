"""predict: digits by number and from files, as a person draws and stores them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import lstm_np


@pytest.fixture(scope="module")
def digits():
    return lstm_np.data.load_digits()


def ask(invoke, trained, *arguments):
    result = invoke("predict", trained, *arguments, "--json")
    assert result.status == 0, result.err
    return json.loads(result.out)["predictions"]


def test_test_images_by_number(invoke, trained, digits):
    answers = ask(invoke, trained, "--index", 0, 7, 499)
    model = lstm_np.SequenceClassifier.load(trained / "weights.safetensors")
    images = digits.test_images[[0, 7, 499]] * np.float32(digits.scale)
    np.testing.assert_allclose([answer["probabilities"] for answer in answers], model.predict_proba(images), rtol=1e-5)
    assert [answer["label"] for answer in answers] == digits.test_labels[[0, 7, 499]].tolist()
    assert [answer["prediction"] for answer in answers] == model.predict(images).tolist()
    assert answers[1]["source"] == "test image 7"


def test_what_a_person_sees(invoke, trained, digits):
    result = invoke("predict", trained, "--index", 0)
    label = digits.test_labels[0]
    lines = result.out.splitlines()
    assert lines[0].startswith(f"test image 0: {label} (")
    assert lines[0].endswith(f", which is right (label {label})")
    bars = [line for line in lines[1:] if line.endswith("%")]
    assert len(bars) == 10
    assert "█" in bars[label]
    assert sum("██" in line[:16] for line in lines[1:]) >= 5  # the digit, 8 lines high, beside its ten bars
    assert max(map(len, lines)) < 80
    assert "\x1b" not in result.out


def test_a_wrong_answer_is_said_to_be_wrong(invoke, trained, digits):
    model = lstm_np.SequenceClassifier.load(trained / "weights.safetensors")
    predicted = model.predict(digits.test_images * np.float32(digits.scale))
    index = int(np.flatnonzero(predicted != digits.test_labels)[0])
    result = invoke("predict", trained, "--index", index)
    assert f"which is wrong: the label is {digits.test_labels[index]}" in result.out


def test_numpy_files_of_the_right_size_are_taken_as_they_are(invoke, trained, digits):
    expected = ask(invoke, trained, "--index", 0, 1, 2)
    np.save("fractions.npy", digits.test_images[:3] / 16)
    answers = ask(invoke, trained, "--image", "fractions.npy")
    for answer, known in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer["probabilities"], known["probabilities"], rtol=1e-5)
    assert [answer["source"] for answer in answers] == [f"fractions.npy[{k}] (8x8)" for k in range(3)]
    assert answers[0]["label"] is None
    np.save("bytes.npy", (digits.test_images[0] / 16 * 255).round().astype(np.uint8))
    (answer,) = ask(invoke, trained, "--image", "bytes.npy")
    np.testing.assert_allclose(answer["probabilities"], expected[0]["probabilities"], atol=0.01)


def test_a_picture_of_the_right_size_is_taken_as_it_is(invoke, trained, digits):
    Image.fromarray((digits.test_images[0] / 16 * 255).round().astype(np.uint8)).save("digit.png")
    (answer,), (known,) = ask(invoke, trained, "--image", "digit.png"), ask(invoke, trained, "--index", 0)
    assert answer["source"] == "digit.png (8x8)"
    np.testing.assert_allclose(answer["probabilities"], known["probabilities"], atol=0.01)


def written(digit, scale, *, dark_on_light, colour=False):
    """A larger picture of a digit with a margin, as a scanner would give it."""
    ink = np.pad(np.kron(digit / 16.0, np.ones((scale, scale))), ((30, 10), (25, 60)))
    grey = ((1 - ink if dark_on_light else ink) * 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey] * 3, axis=-1)) if colour else Image.fromarray(grey)


@pytest.mark.parametrize("dark_on_light", [True, False])
@pytest.mark.parametrize("colour", [True, False])
def test_pictures_of_any_size(invoke, trained, digits, dark_on_light, colour):
    # ones are narrow: their width says that the ink is scaled without being stretched
    chosen = [int(np.flatnonzero(digits.test_labels == k)[0]) for k in (0, 1, 4, 6)]
    for index in chosen:
        written(digits.test_images[index], 10, dark_on_light=dark_on_light, colour=colour).save(f"{index}.png")
    answers = ask(invoke, trained, "--image", *(f"{index}.png" for index in chosen))
    right = [answer["prediction"] == digits.test_labels[index] for answer, index in zip(answers, chosen, strict=True)]
    assert sum(right) >= 3
    assert all(("dark on light: inverted" in answer["source"]) == dark_on_light for answer in answers)
    assert "120x165" in answers[0]["source"]
    assert "centred in 8x8" in answers[0]["source"]


def test_transparent_paper(invoke, trained, digits):
    ink = np.kron(digits.test_images[0] / 16.0, np.ones((10, 10)))
    rgba = np.zeros((80, 80, 4), np.uint8)  # black ink, and nothing where there is none
    rgba[..., 3] = ink * 255
    Image.fromarray(np.pad(rgba, ((10, 10), (10, 10), (0, 0)))).save("clear.png")
    (answer,) = ask(invoke, trained, "--image", "clear.png")
    assert answer["prediction"] == digits.test_labels[0]
    assert "inverted" in answer["source"]
