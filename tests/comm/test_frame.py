"""The header and the payload's sum find what was altered."""

from itertools import pairwise

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


@given(FIELDS, HALF)
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
    raw = frame.numbered(b"HTTP" + frame.encode(*EXAMPLE)[4:], 17)
    with pytest.raises(ValueError, match="HTTP"):
        frame.decode(raw)


def test_links_of_different_ranks_count_from_different_numbers():
    firsts = sorted(frame.first_number(rank) for rank in range(1000))
    assert min(b - a for a, b in pairwise(firsts)) > 1_000_000
    assert frame.next_number(2**32 - 1) == 0
