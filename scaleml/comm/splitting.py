"""Who belongs to the groups that a group is split into."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .group import Group

_COLOR = struct.Struct("<?qq")
_NUMBER = struct.Struct("<IQq")


def members(group: Group, color: int | None, key: int) -> list[int]:
    """Return the root numbers of all ranks with the same `color`, ordered by (`key`, rank); collective."""
    replies = group.allgather_bytes(_COLOR.pack(color is not None, color or 0, key))
    found = []
    for rank, reply in enumerate(replies):
        valid, theirs, order = _COLOR.unpack(reply)
        if valid and theirs == color:
            found.append((order, rank))
    return [group.ranks[rank] for _, rank in sorted(found)]


def number(group: int, sequence: int, color: int) -> int:
    """Return what the frames of the new group carry."""
    return zlib.crc32(_NUMBER.pack(group, sequence, color))
