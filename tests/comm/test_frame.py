"""The header and the payload's sum find what was altered."""

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


def encoded(fields=EXAMPLE, number=17):
    return frame.numbered(frame.encode(*fields), number)


@given(FIELDS, WORD)
def test_a_header_comes_back_as_it_went(fields, number):
    raw = encoded(fields, number)
    assert len(raw) == frame.HEADER
    assert tuple(frame.decode(b"???" + raw, 3))[1:-1] == (*fields, number)


@given(st.integers(0, frame.HEADER * 8 - 1))
def test_every_flipped_bit_of_a_header_is_found(bit):
    raw = bytearray(encoded())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="CRC-32"):
        frame.decode(raw)


def test_another_protocol_is_told_apart():
    raw = bytearray(encoded())
    raw[:4] = b"HTTP"
    raw[-4:] = frame.zlib.crc32(raw[:-4]).to_bytes(4, "little")
    with pytest.raises(ValueError, match="HTTP"):
        frame.decode(raw)


def test_no_two_ranks_have_a_number_in_common():
    assert frame.said(frame.first_number(2) + 5) == "frame 5 of rank 2"
    assert frame.first_number(3) - frame.first_number(2) > 2**40, "frames of a year"
