"""Payloads that no codec has encoded: refused, or decoded to other numbers, and nothing else happens."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from scaleml.compression import FP16, CodecContext, Int8, OneBit, PowerSGD, RandomK, TopK

CODECS = [FP16(), Int8(), OneBit(), TopK(0.01), TopK(0.3), RandomK(0.1), PowerSGD(2)]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_payload_that_none_encoded_is_decoded_or_refused(codec, data):
    """Any bytes of its length, and altered ones; others are refused for their length."""
    n = data.draw(st.sampled_from([0, 1, 7, 64, 3_000]))
    dtype = data.draw(st.sampled_from(("float32", "float64")))
    context, out = CodecContext(matrices=((0, n // 7, 7),) if n >= 7 else (), seed=3), np.zeros(n, dtype)
    payload = codec.encode(np.random.default_rng(0).standard_normal(n).astype(dtype), context)
    if data.draw(st.booleans()) and n:
        for _ in range(data.draw(st.integers(1, 9))):
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    else:
        payload = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, len(payload), dtype=np.uint8)
    before = payload.copy()
    with np.errstate(all="ignore"), contextlib.suppress(ValueError if codec.code in (FP16.code, TopK.code) else ()):
        codec.decode(payload, out, context)
    assert_array_equal(payload, before)
    for other in (payload[:-1], np.append(payload, np.uint8(0)), payload.view(np.int8)):
        if len(payload):
            with pytest.raises(ValueError, match="cannot decode"):
                codec.decode(other, out, context)
