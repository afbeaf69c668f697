"""What payload sums find: everything that alters, moves, repeats or cuts a part of a payload."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaleml.comm.transport.payload_sum import SHORT, TABLE, WIDTH, payload_sum, table_sum

SIZES = [1, 7, 8, 4_096, SHORT, SHORT + 1, 8 * WIDTH * 5, 70_001, TABLE, TABLE + 8, 3 * TABLE - 5]


def total(payload):
    return payload_sum(payload.tobytes(), payload.nbytes)


def payload_of(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def by_hand(payload):
    """The sum in Python's own integers, word by word."""
    rows_crc = columns_crc = 0
    for start in range(0, len(payload), TABLE):
        part = payload[start : start + TABLE]
        rows, rest = divmod(len(part), 8 * WIDTH)
        words = [int.from_bytes(part[at : at + 8], "little") for at in range(0, rows * WIDTH * 8, 8)]
        sums = [sum(words[WIDTH * row : WIDTH * (row + 1)]) for row in range(rows)]
        columns = [sum(words[column::WIDTH]) for column in range(WIDTH)]
        raw_rows, raw_columns = (b"".join((s % 2**64).to_bytes(8, "little") for s in each) for each in (sums, columns))
        rows_crc = zlib.crc32(part[len(part) - rest :], zlib.crc32(raw_rows, rows_crc))
        columns_crc = zlib.crc32(raw_columns, columns_crc)
    return columns_crc << 32 | rows_crc


@pytest.mark.parametrize("size", [SHORT + 1, TABLE + 12_345])
def test_it_is_the_sum_of_rows_and_columns(size):
    payload = payload_of(size).tobytes()
    found = payload_sum(payload, size)
    assert found == by_hand(payload)
    assert found == payload_sum(memoryview(payload), size) == payload_sum(np.frombuffer(payload, np.uint8), size)
    if not size % 4:
        assert found == payload_sum(np.frombuffer(payload, np.float32), size)
    in_parts = 0
    for start in range(0, size, TABLE):
        in_parts = table_sum(memoryview(payload)[start : start + TABLE], in_parts)
    assert in_parts == found, "while it comes"


@given(st.sampled_from(SIZES), st.data())
def test_every_flipped_bit_is_found(size, data):
    payload = payload_of(size)
    bit = data.draw(st.integers(0, size * 8 - 1))
    altered = payload.copy()
    altered[bit // 8] ^= 1 << bit % 8
    assert total(payload) != total(altered)


@given(st.sampled_from([8, 4, 64, 1_448, 4_096, 8 * WIDTH, 65_536]), st.data())
def test_blocks_that_change_places_are_found(unit, data):
    """Words, cache lines, segments of a network, pages, rows of the table."""
    payload = payload_of(2 * TABLE + 8 * data.draw(st.integers(0, 9)))
    units = len(payload) // unit
    first, second = data.draw(st.lists(st.integers(0, units - 1), min_size=2, max_size=2, unique=True))
    altered = payload.copy()
    one, other = (slice(unit * at, unit * (at + 1)) for at in (first, second))
    altered[one], altered[other] = payload[other], payload[one]
    assert total(payload) != total(altered)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_words_that_differ_in_their_sign_alone_do_not_change_places_unseen(dtype):
    rng = np.random.default_rng(1)
    payload = rng.choice([-1.0, 1.0], 40_000).astype(dtype)
    step = 8 // payload.itemsize
    for distance in (1, 2, WIDTH - 1, WIDTH, WIDTH + 1, 7 * WIDTH):
        words = payload.copy().reshape(-1, step)
        first = next(at for at in range(len(words) - distance) if (words[at] != words[at + distance]).any())
        words[[first, first + distance]] = words[[first + distance, first]]
        assert total(words) != total(payload), distance


@given(st.sampled_from(SIZES[5:]), st.data())
def test_what_is_lost_repeated_or_zero_is_found(size, data):
    payload = payload_of(size)
    start = data.draw(st.integers(0, size - 2))
    stop = data.draw(st.integers(start + 1, size))
    moved = np.concatenate((payload[:start], payload[stop:], payload[start:stop]))  # cut out, and the rest moved up
    zeroed, stale = payload.copy(), payload_of(size, seed=2)
    zeroed[start:stop] = 0
    stale[start:stop] = payload[start:stop]
    for altered in (moved, zeroed, stale):
        if not np.array_equal(altered, payload):
            assert total(altered) != total(payload)
