"""What the page on the architecture says of files, packages and the header is so."""

from __future__ import annotations

import math
import re

import pytest

import documents
from scaleml.comm.transport.frame import HEADER

PAGES = ("docs/architecture.md", "CONTRIBUTING.md", "README.md")
PACKAGE = documents.ROOT / "scaleml"
FILE = re.compile(r"`((?:[\w-]+/)+(?:[\w-]+\.py)?|[\w-]+/[\w/-]+\.py)`")


@pytest.mark.parametrize("page", PAGES)
def test_files_and_folders_that_are_named_exist(page: str) -> None:
    named = FILE.findall((documents.ROOT / page).read_text())
    assert named
    missing = [
        name
        for name in named
        if not any((root / name).exists() for root in (documents.ROOT, PACKAGE, PACKAGE / "cluster"))
    ]
    assert not missing


def test_the_map_has_every_package() -> None:
    text = (documents.ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= {name.rstrip("/") for name in re.findall(r"\w+/", text)}


def test_the_header_is_as_long_as_the_page_says() -> None:
    text = (documents.ROOT / "docs" / "architecture.md").read_text()
    assert f"{HEADER} bytes of header" in text
    table = text.split("| field | bytes | |")[1].split("\n\n")[0]
    sizes = [cell.strip() for cell in re.findall(r"^\|[^|]+\|([^|]+)\|", table, re.MULTILINE)][1:]
    assert sum(math.prod(map(int, size.split(" x "))) for size in sizes) == HEADER
