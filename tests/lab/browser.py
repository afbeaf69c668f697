"""A real JupyterLab in a headless Chromium: one server and one browser for all tests, one page a notebook."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import scaleml
from runtime.harness import await_condition

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SLOW = 90_000
"""Milliseconds that anything may take on a loaded machine."""


_SESSION = "jupyterapp.shell.currentWidget?.context?.sessionContext"
_KERNEL = f"{_SESSION}?.session?.kernel"
# For a second, as a person would wait: what a page asks its kernel at once, of widgets too, may be lost before.
_READY = f"""() => {{
  const ready = {_SESSION}?.isReady && {_KERNEL}?.connectionStatus === 'connected' && {_KERNEL}.status === 'idle';
  window.readySince = ready ? window.readySince ?? performance.now() : undefined;
  return performance.now() - window.readySince > 1000;
}}"""
_RUN = """() => {
  window.ran = window.idleSince = undefined;
  jupyterapp.commands.execute('notebook:run-all-cells').then(well => { window.ran = Boolean(well) });
}"""
# All have run; or the kernel has had nothing to do for ten seconds, for it was never told of them.
_RAN_OR_LOST = f"""() => {{
  window.idleSince = {_KERNEL}?.status === 'idle' ? window.idleSince ?? performance.now() : undefined;
  return window.ran !== undefined || performance.now() - window.idleSince > 10000;
}}"""
_LOST = "model not found"
_UNKNOWN = "Comm not found for comm id"
_RAN = "() => window.ran !== undefined"
_RESTART = f"() => {{ window.readySince = undefined; return {_SESSION}.restartKernel(); }}"
"""What a page shows of its kernel says so too early or too late on a busy machine: JupyterLab itself is asked."""


@dataclass
class Jupyter:
    """A JupyterLab server on a folder, and a browser to look at it."""

    folder: Path
    url: str
    browser: Any
    server: Any

    def _ask(self, what: str, method: str = "GET") -> Any:
        call = urllib.request.Request(f"{self.url}/api/{what}", method=method)
        with urllib.request.urlopen(call, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    @contextlib.contextmanager
    def notebook(
        self, name: str, cells: Sequence[str], size: tuple[int, int] = (1440, 1400), path: str = "lab/tree"
    ) -> Iterator[Notebook]:
        """Write a notebook of these cells, open it, run all of it; its kernel ends with the block."""
        write(self.folder / f"{name}.ipynb", cells)
        page = self.browser.new_page(viewport={"width": size[0], "height": size[1]})
        shown = Notebook(page, self, f"{self.url}/{path}/{name}.ipynb")
        page.on("console", lambda message: shown.heard(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: shown.heard(str(error)))
        try:
            shown.open("?reset" if path == "lab/tree" else "")
            yield shown
        except BaseException:
            shown.picture(self.folder / "failed.png")
            raise
        finally:
            page.close()
            for session in self._ask("sessions"):
                with contextlib.suppress(OSError):
                    self._ask(f"sessions/{session['id']}", "DELETE")


@dataclass
class Notebook:
    """An open notebook."""

    NOISE: ClassVar = (
        "favicon",
        "404",
        "debugger state",
    )  # JupyterLab's own: what it misses, and what a reload interrupts

    page: Any
    jupyter: Jupyter
    address: str
    _heard: list[str] = field(default_factory=list)

    def heard(self, text: str) -> None:
        """Keep what the browser's console calls an error."""
        if not any(noise in text for noise in self.NOISE):
            self._heard.append(text)

    @property
    def errors(self) -> list[str]:
        """What the console said.

        Of a widget that it did not find only if one is missing: while a page that was just opened asks its kernel for all widgets,
        it looks for some that come a moment later, and hears of some that it does not know yet.
        """
        missing = self.page.get_by_text(_LOST).count()
        return [text for text in self._heard if missing or not (_LOST in text or _UNKNOWN in text)]

    def open(self, query: str = "") -> None:
        """Load the page and wait for its kernel."""
        self.page.goto(self.address + query)
        self.page.locator(".jp-Notebook").first.wait_for(timeout=SLOW)
        self.page.wait_for_function(_READY, timeout=SLOW)

    def run_all(self, shows: str) -> None:
        """Run all cells, as the menu does, until they have run and their outputs show a text.

        Once more where JupyterLab lost what a kernel was to run; or the widgets of a kernel that was just started, for it forgets
        those of the one before, and whatever has come meanwhile with them. What the console said of those is forgotten, too.
        """
        from playwright.sync_api import TimeoutError as TooLate

        for _ in range(3):
            self.page.evaluate(_RUN)
            self.page.wait_for_function(_RAN_OR_LOST, timeout=SLOW)
            if self.page.evaluate(_RAN):
                with contextlib.suppress(TooLate):
                    self._shown(shows).wait_for(timeout=SLOW / 4)
                    return
            self._heard.clear()
        raise AssertionError(f"the cells were not run, or did not show {shows!r}")

    def _shown(self, text: str) -> Any:
        return self.page.locator(".jp-OutputArea-output").get_by_text(re.compile(text)).first

    def restart(self) -> None:
        """Restart the kernel, as the menu does."""
        self.page.evaluate(_RESTART)
        self.page.wait_for_function(_READY, timeout=SLOW)

    def wait(self, text: str) -> Any:
        """Wait until a text is visible in some output, and return where."""
        found = self._shown(text)
        found.wait_for(timeout=SLOW)
        return found

    def reopen(self, text: str) -> Any:
        """Load the page again until its widgets show a text: ipywidgets gives the kernel four seconds to tell their state."""
        for _ in range(5):
            self.open()
            shown = self.wait(f"{text}|{_LOST}")
            if _LOST not in shown.inner_text():
                return shown
        raise AssertionError("the kernel did not tell its widgets' state in time")

    def press(self, text: str) -> None:
        """Click the button of that name."""
        self.page.locator(f'button.widget-button:has-text("{text}"):not([disabled])').first.click(timeout=SLOW)

    def save(self) -> None:
        """Save the notebook, as Ctrl-S does: again where something changed meanwhile, or the page was too busy to hear."""
        from playwright.sync_api import TimeoutError as TooLate

        for _ in range(4):
            self.page.evaluate("() => { jupyterapp.commands.execute('docmanager:save') }")
            with contextlib.suppress(TooLate):
                self.page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')", timeout=SLOW / 4)
                return
        raise AssertionError("the notebook could not be saved")

    def saved(self) -> Any:
        """Return what the file holds."""
        path, found = self.jupyter.folder / self.address.rpartition("/")[2], []

        def whole() -> bool:  # it may just be written again
            with contextlib.suppress(ValueError):
                found.append(json.loads(path.read_text()))
            return bool(found)

        assert await_condition(whole, SLOW / 1000)
        return found[0]

    def picture(self, path: Path) -> None:
        """Save what is seen."""
        self.page.screenshot(path=str(path))

    def tracebacks(self) -> list[str]:
        """What cells show of errors."""
        return list(
            self.page.locator(
                '.jp-OutputArea-output[data-mime-type*="error"], [data-mime-type*="stderr"]'
            ).all_inner_texts()
        )


def write(path: Path, cells: Sequence[str]) -> Path:
    """Write a notebook with a kernel: without one a dialog would ask for it."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = [
        {"cell_type": "code", "id": f"cell-{i}", "metadata": {}, "source": text, "outputs": [], "execution_count": None}
        for i, text in enumerate(cells)
    ]
    content = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))
    return path


@contextlib.contextmanager
def jupyter(folder: Path, python: str = sys.executable, theme: str = "JupyterLab Light") -> Iterator[Jupyter]:
    """Start JupyterLab on a folder and a browser; both end with the block."""
    from playwright.sync_api import sync_playwright

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = folder / ".jupyter-home"
    _save_settings(settings / "settings" / "@jupyterlab" / "apputils-extension", theme)
    package = str(Path(scaleml.__file__).parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "JUPYTER_CONFIG_DIR": str(settings / "config"),
        "JUPYTER_DATA_DIR": str(settings / "data"),
        "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings / "settings"),
    }
    with open(folder / "server.log", "wb") as log:
        command = [python, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"]
        command += ["--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token="]
        command += ["--ServerApp.password=", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None"]
        command += ["--ServerApp.disable_check_xsrf=True"]  # the tests ask it, too, not only the page
        command += ["--LabApp.expose_app_in_browser=True"]  # for what they ask the page
        command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(port, server, folder / "server.log")
        with sync_playwright() as tools:
            browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
            try:
                yield Jupyter(folder, url, browser, server)
            finally:
                browser.close()
    finally:
        server.terminate()
        server.wait(30)


def _save_settings(folder: Path, theme: str) -> None:
    folder.mkdir(parents=True)
    (folder / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    news = {"fetchNews": "false", "checkForUpdates": False}
    (folder / "notification.jupyterlab-settings").write_text(json.dumps(news))


def _await(port: int, server: Any, log: Path) -> None:
    """Wait until the server says that it listens: it writes so to its log."""
    listens = await_condition(lambda: server.poll() is not None or f":{port}/" in log.read_text(), SLOW / 1000)
    assert listens, f"JupyterLab did not start:\n{log.read_text()[-2000:]}"
    assert server.poll() is None, f"JupyterLab ended:\n{log.read_text()[-2000:]}"
