"""What one Edge TPU subgraph can hold, against a search over the whole graph."""

from hypothesis import given
from hypothesis import strategies as st

from tfopt.export.edge_tpu.memory import CACHE_BYTES, cached_and_streamed, parameter_bytes
from tfopt.export.edge_tpu.partition import cut_off_by
from tfopt.export.tflite_file import Operator, Tensor


def tensor(name: str, dtype: str = "INT8", constant: bytes | None = None) -> Tensor:
    return Tensor(name, (1, 4), dtype, (0.1,), (0,), 0, constant, None, (1, 4))


@st.composite
def graphs(draw):
    """Operators that each read some earlier tensors, and which of them the Edge TPU has."""
    tensors = [tensor("first"), tensor("second")]
    operators, supported = [], []
    for position in range(draw(st.integers(1, 9))):
        read = draw(st.lists(st.integers(0, len(tensors) - 1), min_size=1, max_size=3))
        tensors.append(tensor(str(position)))
        operators.append(Operator("ADD", 1, tuple(tensors[one] for one in read), (tensors[-1],)))
        supported.append(draw(st.booleans()))
    return operators, supported


@given(graphs())
def test_an_operator_maps_unless_a_cpu_operator_lies_between_it_and_the_subgraph(graph):
    operators, supported = graph
    made_by = {id(one.outputs[0]): position for position, one in enumerate(operators)}
    before: list[set[int]] = []  # all operators that each depends on
    for one in operators:
        direct = {made_by[id(read)] for read in one.inputs if id(read) in made_by}
        before.append(direct.union(*(before[position] for position in direct)))
    cuts = cut_off_by(operators, supported)
    mapped = {position for position, cut in enumerate(cuts) if supported[position] and cut is None}
    for position, cut in enumerate(cuts):
        between = {one for one in before[position] if one not in mapped and before[one] & mapped}
        assert (cut is None) == (not between)
        if cut is not None:
            assert not supported[cut]
            assert cut in between


def test_operators_before_and_beside_stay_possible():
    image, cast, scaled, first, side, joined, last = map(tensor, ("i", "c", "s", "f", "x", "j", "l"))
    operators = [
        Operator("CAST", 1, (image,), (cast,)),
        Operator("QUANTIZE", 1, (cast,), (scaled,)),
        Operator("CONV_2D", 1, (scaled,), (first,)),
        Operator("GELU", 1, (first,), (side,)),
        Operator("ADD", 1, (first, side), (joined,)),
        Operator("RELU", 1, (first,), (last,)),
    ]
    assert cut_off_by(operators, [False, False, True, False, True, True]) == [None, None, None, None, 3, None]


def test_shared_weights_count_once_and_settings_do_not():
    kernel, bias, shape = (
        tensor("k", constant=bytes(100)),
        tensor("b", "INT32", bytes(8)),
        tensor("s", "INT32", b"1234"),
    )
    image, addend = tensor("i"), tensor("a", constant=bytes(7))
    operators = [
        Operator("CONV_2D", 1, (image, kernel, bias), (image,)),
        Operator("CONV_2D", 1, (image, kernel), (image,)),
        Operator("RESHAPE", 1, (image, shape), (image,)),
        Operator("ADD", 1, (addend, image), (image,)),
        Operator("TRANSPOSE_CONV", 1, (shape, kernel, image, bias), (image,)),
    ]
    assert parameter_bytes(operators) == 100 + 8 + 7


def test_what_does_not_fit_is_streamed():
    assert 7.6 * 2**20 < CACHE_BYTES < 7.9 * 2**20
    assert cached_and_streamed(CACHE_BYTES) == (CACHE_BYTES, 0)
    assert cached_and_streamed(CACHE_BYTES + 5) == (CACHE_BYTES, 5)
