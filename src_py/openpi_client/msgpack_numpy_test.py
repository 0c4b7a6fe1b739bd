import msgpack
import numpy as np
import pytest

from openpi_client import msgpack_numpy

# One message as the published client packs it (numpy 1.26, msgpack 1.x), byte for byte.
PUBLISHED = bytes.fromhex(
    "89a173a474657874a16903a166cb3ff8000000000000a162c3a46e6f6e65c0a361727284c40b5f5f6e6461727261795f5fc3c4046461"
    "7461c418000000000000803f0000004000004040000080400000a040c4056474797065a33c6634c4057368617065920203a2753884c4"
    "0b5f5f6e6461727261795f5fc3c40464617461c4050001020304c4056474797065a37c7531c40573686170659105a67363616c617283"
    "c40d5f5f6e7067656e657269635f5fc3c40464617461cb4004000000000000c4056474797065a33c6634a66e657374656481a17884c4"
    "0b5f5f6e6461727261795f5fc3c40464617461c4020100c4056474797065a37c6231c40573686170659102"
)
MESSAGE = {
    "s": "text",
    "i": 3,
    "f": 1.5,
    "b": True,
    "none": None,
    "arr": np.arange(6, dtype=np.float32).reshape(2, 3),
    "u8": np.arange(5, dtype=np.uint8),
    "scalar": np.float32(2.5),
    "nested": {"x": np.array([True, False])},
}


def test_packs_the_published_bytes():
    assert msgpack_numpy.packb(MESSAGE) == PUBLISHED
    assert msgpack_numpy.Packer().pack(MESSAGE) == PUBLISHED


def test_unpacks_the_published_bytes():
    message = msgpack_numpy.unpackb(PUBLISHED)
    assert list(message) == list(MESSAGE)
    np.testing.assert_array_equal(message["arr"], MESSAGE["arr"])
    assert message["arr"].dtype == np.float32
    assert isinstance(message["scalar"], np.float32)
    assert message["nested"]["x"].tolist() == [True, False]


def test_unpacker_reads_a_stream():
    unpacker = msgpack_numpy.Unpacker()
    unpacker.feed(PUBLISHED + PUBLISHED)
    assert [len(message) for message in unpacker] == [9, 9]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), np.float32),
        np.array(3.0),
        np.array([1, 2], ">i4"),
        np.arange(12).reshape(3, 4)[:, ::2],
        np.array(["pick", "place"]),
        np.array([b"ab"]),
        np.float16([1.5]),
    ],
)
def test_arrays_come_back(array):
    back = msgpack_numpy.unpackb(msgpack_numpy.packb({"x": array}))["x"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape


@pytest.mark.parametrize("value", [np.array([None]), np.complex64(1), np.zeros(2, [("a", "i4")])])
def test_refuses_to_pack(value):
    with pytest.raises(ValueError, match="Unsupported dtype"):
        msgpack_numpy.packb(value)


def _array(**changes: object) -> bytes:
    fields: dict = {"__ndarray__": True, "data": bytes(8), "dtype": "<f4", "shape": [2]} | changes
    return msgpack.packb({key.encode(): value for key, value in fields.items()})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": "|O"}, "Unsupported dtype"),
        ({"dtype": "<c8"}, "Unsupported dtype"),
        ({"dtype": "i4,f4"}, "Unsupported dtype"),
        ({"dtype": "nonsense"}, "no numpy dtype"),
        ({"dtype": 3}, "must be a string"),
        ({"dtype": None}, "must be a string"),
        ({"shape": [3]}, "12 bytes, got 8"),
        ({"shape": [2**62, 2**62]}, "bytes, got 8"),
        ({"shape": [-2]}, "non-negative"),
        ({"shape": [True, 2]}, "non-negative"),
        ({"shape": "2"}, "non-negative"),
        ({"shape": [1] * 40 + [2]}, "bytes, got 8"),
        ({"data": [1, 2]}, "must be bytes"),
        ({"data": "text"}, "must be bytes"),
    ],
)
def test_refuses_to_unpack(changes, words):
    with pytest.raises(msgpack_numpy.WireFormatError, match=words):
        msgpack_numpy.unpackb(_array(**changes))


@pytest.mark.parametrize(("dtype", "data"), [("<f4", [1]), ("<f4", "x"), ("|u1", 300), ("<M8[s]", 5), ("|O", 1)])
def test_refuses_bad_scalars(dtype, data):
    packed = msgpack.packb({b"__npgeneric__": True, b"data": data, b"dtype": dtype})
    with pytest.raises(msgpack_numpy.WireFormatError):
        msgpack_numpy.unpackb(packed)
