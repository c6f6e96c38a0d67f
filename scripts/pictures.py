"""Make the pictures in ``docs/pictures``: of Dagster's UI (lineage, a run, plots, a job's use), and the example's own.

It runs the example, with ever more epochs, in a temporary folder, with the local profile, starts ``dg dev`` there, and
lets a Chromium without a window look at it, in light and dark. Needs Debian's packages chromium and chromium-driver;
`make pictures` brings the rest.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
BIN = ROOT / ".venv" / "bin"
EPOCHS = (2, 5, 10, 600)
TRAINED = "digits/model"
"""The asset whose epochs these are: the last time it is made for longer than the sampler needs to see something."""
SIZE = (1280, 1000)
COLORS = 160
"""A picture of a user interface needs no more, and is half the size."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
INSTANCE = "telemetry: {enabled: false}\nnux: {enabled: false}\n"


def main() -> None:
    """Make all pictures."""
    with tempfile.TemporaryDirectory(prefix="dg-slurm-pictures-") as folder:
        project = Path(folder) / "digits"
        shutil.copytree(ROOT / "examples" / "digits", project, ignore=shutil.ignore_patterns(".dagster*"))
        environment = prepared(Path(folder), project)
        shutil.copy(drawn(project, environment), PICTURES / "diabetes.png")
        defs = project / "src" / "digits" / "defs" / "digits" / "defs.yaml"
        text = defs.read_text()
        for epochs in EPOCHS:
            print(f"runs the example with {epochs} epochs")
            defs.write_text(text.replace('"--epochs", "20"', f'"--epochs", "{epochs}"'))
            launch(project, environment, "digits")
        with webserver(project, environment) as address:
            for theme in ("light", "dark"):
                take(address, theme, Path(folder))


def drawn(project: Path, environment: dict[str, str]) -> Path:
    """Return the figure that the example's notebook draws."""
    launch(project, environment, "diabetes")
    (figure,) = (project / ".dagster-slurm" / "outputs").rglob("figure.png")
    return figure


def launch(project: Path, environment: dict[str, str], group: str) -> None:
    """Make a group of the example's assets once; what it prints goes to a file, whose end is shown if it fails."""
    log = project / "launch.log"
    with log.open("w") as output:
        command = [str(BIN / "dg"), "launch", "--assets", f"group:{group}"]
        done = subprocess.run(
            command, cwd=project, env=environment, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        raise SystemExit(log.read_text()[-3000:])


def prepared(folder: Path, project: Path) -> dict[str, str]:
    """Return the environment of the project's commands; their state lies in the folder."""
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(INSTANCE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "PYTHON"))}
    return {
        **kept,
        "DAGSTER_HOME": str(home),
        "DAGSTER_SLURM_PROFILE": "local",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": f"{project / 'src'}:{ROOT}",
    }


@contextlib.contextmanager
def webserver(project: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run `dg dev`, and give its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(BIN / "dg"), "dev", "--host", "127.0.0.1", "--port", str(port)]
    with (project / "dev.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not answers(address):
            time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def answers(address: str) -> bool:
    """Return whether the webserver has loaded the project."""
    try:
        return bool(ask(address, "{workspaceOrError{...on Workspace{locationEntries{loadStatus}}}}"))
    except OSError:
        return False


def ask(address: str, query: str) -> dict[str, Any]:
    """Return the webserver's answer to a question in GraphQL."""
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["data"]


def take(address: str, theme: str, folder: Path) -> None:
    """Take all pictures in one theme."""
    run = ask(address, "{runsOrError(limit: 1){...on Runs{results{runId}}}}")["runsOrError"]["results"][0][
        "runId"
    ]
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--window-size={SIZE[0]},{SIZE[1]}", f"--user-data-dir={folder / theme}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        chosen = f"localStorage.setItem('dagster-theme', '\"{theme.capitalize()}\"')"
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": chosen})
        browser.get(f"{address}/locations/digits/asset-groups/digits/lineage")
        shown(browser, "1 / 1 Passed")
        save(browser, f"lineage-{theme}")
        browser.get(f"{address}/runs/{run}")
        shown(browser, "RUN_SUCCESS")
        save(browser, f"run-{theme}")
        browser.get(f"{address}/assets/digits/evaluation?view=overview")
        shown(browser, "Plots")
        browser.find_element(By.XPATH, "//button[contains(., 'Plots')]").click()
        shown(browser, "Table")
        save(browser, f"plots-{theme}")
        browser.get(f"{address}/assets/{TRAINED}?view=overview")
        shown(browser, "[Show Markdown]")
        browser.find_element(By.XPATH, "//*[text()='[Show Markdown]']").click()
        shown(browser, "Copy")
        save(browser, f"usage-{theme}")
    finally:
        browser.quit()


def shown(browser: webdriver.Chrome, text: str) -> None:
    """Wait until a text is on the page."""
    WebDriverWait(browser, 60).until(lambda page: text in page.find_element(By.TAG_NAME, "body").text)


def save(browser: webdriver.Chrome, name: str) -> None:
    """Write what the browser shows, with few colours."""
    time.sleep(3)  # what moves comes to rest
    file = PICTURES / f"{name}.png"
    file.parent.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(browser.get_screenshot_as_png())) as picture:
        picture.convert("RGB").quantize(COLORS).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
