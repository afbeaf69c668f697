"""MIME bundles: what a notebook is given to show, with figures as bytes.

Data draws nothing itself. `telemetry.display` registers with `mimebundle` how each kind of it is shown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import singledispatch
from typing import TYPE_CHECKING

from scaleml.escaping import escape, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@singledispatch
def mimebundle(thing: object) -> dict[str, str]:
    """Return what a notebook shows of a thing: its repr, unless its kind has been registered."""
    return bundle(repr(thing), None, None)


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file, of few colours: a notebook keeps it twice."""
    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=dpi)
    with Image.open(full) as image:
        image.convert("RGB").quantize(192, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def data_uri(figure: Figure, dpi: int = 110) -> str:
    """The figure as the source of an HTML image."""
    return "data:image/png;base64," + base64.b64encode(png(figure, dpi)).decode("ascii")


def bundle(text: str, html: str | None, draw: Callable[[], Figure] | None) -> dict[str, str]:
    """What `_repr_mimebundle_` returns: plain text, HTML with the picture in it, and the picture itself.

    Pictures are base64, as notebooks keep them. Without matplotlib there is no picture, and the rest stands alone.
    """
    text = printable(text)
    html = f'<pre style="white-space:pre-wrap">{escape(text)}</pre>' if html is None else html
    try:
        picture = None if draw is None else data_uri(draw())
    except ImportError:
        picture = None
    if picture is None:
        return {"text/plain": text, "text/html": html}
    image = f'<img style="max-width:100%;border-radius:6px" alt="{escape(text.splitlines()[0])}" src="{picture}">'
    return {"text/plain": text, "text/html": html + image, "image/png": picture.partition(",")[2]}
