"""Names of earlier versions: translated where something is read, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from lstm_np import old_names, options
from lstm_np.model import SequenceClassifier
from lstm_np.weights import WeightsError

pytestmark = pytest.mark.quick


def test_every_old_option_is_one_that_there_is_no_more():
    for old, (new, _) in old_names.OPTIONS.items():
        assert old not in options.BY_NAME
        assert new in options.BY_NAME
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{old}'"):
            SequenceClassifier(3, 4, 2, **{old: None})


def test_options_are_translated():
    values = {"hidden_size": 5, "double_bias": True, "projection_initializer": None, "projection_bias": 0.1, "new": 1}
    assert old_names.options(values) == {
        "hidden_size": 5,
        "bias": "double",
        "input_projection_initializer": None,
        "input_projection_bias": 0.1,
        "new": 1,
    }
    assert old_names.options({"double_bias": False}) == {"bias": True}
    assert values["double_bias"] is True  # what was given is left as it was


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"double_bias": "double"}, "double_bias must be true or false, found 'double'"),
        ({"double_bias": 1}, "double_bias must be true or false, found 1"),
        ({"double_bias": True, "bias": True}, "double_bias is called bias now, and both are given"),
        (
            {"input_projection_bias": 0.1, "projection_bias": 0.1},
            "projection_bias is called input_projection_bias now, and both are given",
        ),
    ],
)
def test_what_is_refused(values, message):
    with pytest.raises(ValueError) as refused:
        old_names.options(values)
    assert str(refused.value) == message


def test_parameters_are_translated_by_their_section():
    arrays = {"layer0.W": 1, "projection.W": 2, "projection.b": 3, "my.projection.W": 4, "projection": 5}
    assert old_names.parameters(arrays) == {
        "layer0.W": 1,
        "input_projection.W": 2,
        "input_projection.b": 3,
        "my.projection.W": 4,
        "projection": 5,
    }
    for twice in ({"projection.W": 1, "input_projection.W": 2}, {"input_projection.W": 1, "projection.W": 2}):
        with pytest.raises(ValueError, match=r"projection\.W is called input_projection\.W now, and both are given"):
            old_names.parameters(twice)


def test_weights_with_old_names_are_taken():
    one, other = (SequenceClassifier(4, 3, 5, input_projection=6, seed=seed) for seed in (1, 2))
    old = {name.removeprefix("input_"): array for name, array in one.params.items()}
    assert "projection.W" in old
    other.load_weights(old, "a dictionary")
    np.testing.assert_array_equal(other.params.flat, one.params.flat)
    with pytest.raises(WeightsError, match=r"^a dictionary: projection\.W is called input_projection\.W now, and both"):
        other.load_weights(dict(one.params) | old, "a dictionary")
