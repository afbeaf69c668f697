"""The header and the payload's sum find what was altered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaleml.comm.transport import frame

WORD = st.integers(0, 2**64 - 1)
HALF = st.integers(0, 2**32 - 1)
BYTE = st.integers(0, 255)
FIELDS = st.tuples(
    BYTE, BYTE, BYTE, BYTE, HALF, HALF, HALF, WORD, HALF, HALF, WORD, WORD, WORD, WORD, st.floats(allow_nan=False), WORD
)
EXAMPLE = (frame.MESSAGE, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0.25, 16)


@given(FIELDS)
def test_a_header_comes_back_as_it_went(fields):
    raw = frame.encode(*fields)
    assert len(raw) == frame.HEADER
    assert tuple(frame.decode(b"???" + raw, 3))[1:-1] == fields


@given(st.integers(0, frame.HEADER * 8 - 1))
def test_every_flipped_bit_of_a_header_is_found(bit):
    raw = bytearray(frame.encode(*EXAMPLE))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="CRC-32"):
        frame.decode(raw)


def test_another_protocol_is_told_apart():
    raw = bytearray(frame.encode(*EXAMPLE))
    raw[:4] = b"HTTP"
    raw[-4:] = frame.zlib.crc32(raw[:-4]).to_bytes(4, "little")
    with pytest.raises(ValueError, match="HTTP"):
        frame.decode(raw)


@given(st.binary(max_size=100))
def test_the_sum_is_that_of_little_endian_words(payload):
    padded = payload + bytes(-len(payload) % 8)
    words = [int.from_bytes(padded[at : at + 8], "little") for at in range(0, len(padded), 8)]
    assert frame.word_sum(payload) == sum(words) % 2**64
    assert frame.word_sum(memoryview(payload)) == frame.word_sum(np.frombuffer(payload, np.uint8))


@given(st.binary(min_size=1, max_size=100), st.data())
def test_every_flipped_bit_of_a_payload_is_found(payload, data):
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    altered = bytearray(payload)
    altered[bit // 8] ^= 1 << bit % 8
    assert frame.word_sum(payload) != frame.word_sum(altered)
    assert frame.payload_sum(payload, len(payload)) != frame.payload_sum(altered, len(altered))
