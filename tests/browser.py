"""A real Chromium without a window, driven over its own WebDriver protocol; needs nothing beside Debian's packages."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from waiting import PATIENCE, eventually

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
_SHIFT, _CONTROL, _RELEASE = "\ue008", "\ue009", "\ue000"

_FIND = """
    const found = document.evaluate(arguments[0], document, null, XPathResult.FIRST_ORDERED_NODE_TYPE, null)
    const element = found.singleNodeValue
    return element && !element.disabled ? element : null
"""


class RefusedError(Exception):
    """The browser does not do what it was asked for."""


@dataclass(frozen=True)
class Browser:
    """A session of a browser."""

    address: str

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.address + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RefusedError(error.read().decode()) from error

    def open(self, url: str) -> None:
        """Go to a page."""
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript in the page; return what it returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    @property
    def text(self) -> str:
        """What is read on the page."""
        return str(self.run("return document.body.innerText"))

    def shows(self, text: str) -> None:
        """Wait until a text is on the page."""
        eventually(lambda: text in self.text, f"{text!r} is shown")

    def click(self, xpath: str, *, shift: bool = False) -> None:
        """Click on an element, with Shift held if it is to be so, once it is there and takes clicks."""
        eventually(lambda: self._clicked(xpath, shift=shift), f"{xpath} takes a click")

    def _clicked(self, xpath: str, *, shift: bool) -> bool:
        found = self.run(_FIND, xpath)
        if found is None:
            return False
        pause = {"type": "pause", "duration": 0}
        move = {"type": "pointerMove", "origin": found, "x": 0, "y": 0}
        mouse = [move, *({"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")), pause]
        keys = [{"type": kind, "value": _SHIFT} for kind in ("keyDown", "keyUp")] if shift else [pause, pause]
        pointer = {"type": "pointer", "id": "mouse", "actions": mouse}
        keyboard = {"type": "key", "id": "keyboard", "actions": [keys[0], pause, pause, keys[1]]}
        try:
            self._ask("POST", "/actions", {"actions": [pointer, keyboard]})
        except RefusedError:  # the page was drawn anew in between
            return False
        return True

    def type(self, keys: str) -> None:
        """Type into what has the focus, in place of all that stands there."""
        (focus,) = self._ask("GET", "/element/active").values()
        self._ask("POST", f"/element/{focus}/value", {"text": f"{_CONTROL}a{_RELEASE}{keys}"})

    def picture(self, file: Path) -> None:
        """Write what is seen into a file."""
        file.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser, whose state lies in a folder; skip where there is none."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("no browser here: Debian's packages chromium and chromium-driver bring one")
    port = free_port()
    with (folder / "chromedriver.log").open("w") as log:
        driver = subprocess.Popen(
            [str(programs[1]), f"--port={port}", "--allowed-ips=127.0.0.1"], stdout=log, stderr=log
        )
    session = Browser(f"http://127.0.0.1:{port}")
    try:
        eventually(lambda: _answers(port), "chromedriver starts")
        options = {"binary": programs[0], "args": [*FLAGS, f"--user-data-dir={folder / 'chromium'}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        made = session._ask("POST", "/session", wanted)
        session = Browser(f"{session.address}/session/{made['sessionId']}")
        try:
            yield session
        finally:
            session._ask("DELETE", "")
    finally:
        driver.terminate()
        driver.wait(PATIENCE)


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
