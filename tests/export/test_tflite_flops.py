import pytest

from tfopt.export.tflite_file import Operator, Tensor
from tfopt.export.tflite_flops import operator_flops


def tensor(*shape):
    return Tensor("t", shape, "FLOAT32", (), (), 0, None)


@pytest.mark.parametrize(
    ("name", "inputs", "output", "flops"),
    [
        ("CONV_2D", [(1, 8, 8, 3), (4, 3, 3, 3), (4,)], (1, 6, 6, 4), 2 * 36 * 4 * 27),
        ("DEPTHWISE_CONV_2D", [(1, 8, 8, 3), (1, 3, 3, 6)], (1, 8, 8, 6), 2 * 64 * 6 * 9),
        ("FULLY_CONNECTED", [(1, 10), (7, 10), (7,)], (1, 7), 2 * 70),
        ("TRANSPOSE_CONV", [(4,), (5, 3, 3, 4), (1, 4, 4, 4)], (1, 8, 8, 5), 2 * 16 * 5 * 9 * 4),
        ("BATCH_MATMUL", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), 2 * 2 * 3 * 5 * 4),
        ("ADD", [(1, 8), (1, 8)], (1, 8), 0),
        ("FULLY_CONNECTED", [(-1, 10), (7, 10)], (-1, 7), 2 * 70),
        ("BATCH_MATMUL", [(-1, 3, 4), (-1, 4, 5)], (-1, 3, 5), 2 * 3 * 5 * 4),
        ("CONV_2D", [(1, -1, 8, 3), (4, 3, 3, 3), (4,)], (1, -1, 6, 4), None),
        ("CONV_3D", [(1, 4, 4, 4, 1), (3, 3, 3, 1, 2)], (1, 2, 2, 2, 2), None),
    ],
)
def test_operations_of_an_operator(name, inputs, output, flops):
    operator = Operator(name, 1, tuple(tensor(*shape) for shape in inputs), (tensor(*output),))
    assert operator_flops(operator) == flops
