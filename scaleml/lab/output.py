"""Output: what the notebook's page and its file hold of a lab, beside the widgets that live."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import ipywidgets as widgets

from scaleml.escaping import escape
from scaleml.lab.report import VIEW

_KEEP: Final = """
const sheet = this, tools = globalThis._JUPYTERLAB?.['@jupyter-widgets/jupyterlab-manager'];
const keep = async () => {
  const bundle = JSON.parse(sheet.nextElementSibling.textContent), view = sheet.dataset.view, id = bundle[view].model_id;
  const own = (await tools.get('./index'))().LabWidgetManager.prototype, usual = own.callbacks;
  let input, manager;
  for (let left = 600; left && !input; left--) {
    await new Promise(requestAnimationFrame);
    input = sheet.closest('.scaleml-output')?.querySelector('input');
  }
  own.callbacks = function (sender) { manager = this; return usual.call(this, sender) };
  try {
    input.value = Math.random();
    input.dispatchEvent(new Event('change', { bubbles: true }));
  } finally {
    own.callbacks = usual;
  }
  for (const { outputs } of manager.context.model.cells)
    for (let i = 0; i < (outputs?.length ?? 0); i++) {
      const { data, metadata } = outputs.get(i);
      if (data[view]?.model_id === id && data['text/plain'] !== bundle['text/plain'])
        outputs.set(i, { output_type: 'display_data', data: bundle, metadata });
    }
};
if (tools) keep().catch(error => console.warn('scaleml: what was found could not be put into the notebook', error));
"""
"""Run by a page that shows a lab. A page that was loaded again no longer knows where a display is that the kernel renews; but JupyterLab
lets its extensions be loaded, and with them the manager of the widgets, which has the notebook. Widgets do not tell which one is theirs:
the one that asks for callbacks while ours has changed."""


@final
class Output:
    """The display of one lab in the outputs of its notebook, which can be replaced.

    Attributes
    ----------
    shown : bool
        Whether there is one.
    widget : Widget
        Unseen; among the widgets that are displayed, it has also a page that was loaded again put what is found into its notebook.
    """

    def __init__(self) -> None:
        self._id = secrets.token_hex(16)
        self.shown = False
        self._kept = widgets.HTML()
        hidden = widgets.Layout(display="none")
        self.widget = widgets.VBox([self._kept, widgets.Text(continuous_update=False)], layout=hidden)
        self.widget.add_class("scaleml-output")

    def show(self, bundle: Mapping[str, Any]) -> None:
        """Put it into the cell that runs."""
        from IPython.display import display

        self.shown = True
        display(dict(bundle), raw=True, display_id=self._id)

    def replace(self, bundle: Mapping[str, Any]) -> None:
        """Have the page and the file hold this instead."""
        if self.shown:
            from IPython.display import update_display

            update_display(dict(bundle), raw=True, display_id=self._id)
            if VIEW in bundle:
                self._kept.value = _keeping(bundle)

    def forget(self) -> None:
        """Take it as gone from the page, as with its cell's output."""
        self.shown = False


def _keeping(bundle: Mapping[str, Any]) -> str:
    """Return what has a page put this into its notebook where it is not there yet."""
    content = json.dumps(bundle).replace("<", "\\u003c")
    sheet = f'<style data-view="{VIEW}" onload="{escape(" ".join(_KEEP.split()))}">.scaleml-output {{ }}</style>'
    return f'{sheet}<script type="application/json">{content}</script>'


def soon(*calls: Callable[[], None]) -> None:
    """Have the kernel's main loop call these, once no cell blocks it: figures are drawn on the main thread only."""
    from IPython import get_ipython

    loop: Any = getattr(getattr(get_ipython(), "kernel", None), "io_loop", None)
    for call in calls if loop is not None else ():
        loop.add_callback(call)
