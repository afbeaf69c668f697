"""Codecs: gradients that travel as fewer bytes. What one transmission loses is remembered and sent with the next.

One codec a file. Each is a frozen dataclass of settings with pure methods, used as ``AllReduce(compression=Int8())``.

Which one: `Int8` and `FP16` lose so little that nothing else need change. `TopK` and `OneBit` send 3% and less, and train as well with
plain SGD; with momentum or Adam, whose averages meet what comes late a second time, they want a smaller learning rate or more
items. `PowerSGD` of rank 2 bears momentum, and needs weight matrices. `RandomK` is the cheapest to compute, and bears least.
"""

from scaleml.compression.base import Codec, CodecContext
from scaleml.compression.fp16 import FP16
from scaleml.compression.int8 import Int8
from scaleml.compression.one_bit import OneBit
from scaleml.compression.power_sgd import PowerSGD
from scaleml.compression.random_k import RandomK
from scaleml.compression.top_k import TopK

__all__ = ["FP16", "Codec", "CodecContext", "Int8", "OneBit", "PowerSGD", "RandomK", "TopK"]
