"""Value networks as functions of the output alone."""

import jax
import numpy as np
import pytest

from gasn_jax.nn import calls, multi_label, segmentation

KEY = jax.random.key(0)
CASES = {
    "labels": (multi_label.LabelValue(4, (8,), 3, 0.5), (7,), (4,)),
    "masks": (segmentation.SegmentationValue((4, 5, 6), dropout_rate=0.5), (8, 8, 3), (8, 8)),
}


@pytest.mark.parametrize("case", CASES)
def test_of_an_output_it_is_the_call(case):
    module, x_shape, y_shape = CASES[case]
    x, y = jax.random.normal(KEY, x_shape), jax.random.uniform(KEY, y_shape)
    variables = module.init(KEY, x, y)
    value_fn = calls.of_output(module, variables, x)
    np.testing.assert_allclose(value_fn(y), calls.applied(module, variables, x, y), rtol=1e-6)
    value_fn = calls.of_output(module, variables, x, key=KEY)
    dropped = calls.in_training(module, variables, KEY, x, y)
    np.testing.assert_allclose(value_fn(y), dropped, rtol=1e-6)
    assert float(dropped) != float(calls.applied(module, variables, x, y))
