"""Pages as files, opened in a real browser: Debian's Chromium and the extra `browser`."""

import importlib.util
import shutil

import pytest

from minicircuits.report.page import html_file
from tests.report.reported import living, normalized, reported

playwright = (importlib.import_module("playwright.sync_api")
              if importlib.util.find_spec("playwright") else None)
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The pages of models of 0, 1 and 2 layers, as files."""
    folder = tmp_path_factory.mktemp("pages")
    for n_layers in range(3):
        (folder / f"{n_layers}.html").write_bytes(html_file("page", reported(n_layers).data))
    return folder


@pytest.fixture
def opened(browser, folder):
    """opened(file, …): the page of a file; in the end it must have been silent."""
    said, asked, pages = [], [], []

    def open_page(path=folder / "2.html", fragment="", width=1200, height=900, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{path}{fragment}")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []
    assert len(asked) == len(pages) and all(url.startswith("file:") for url in asked)


@pytest.fixture(scope="session")
def alive(folder):
    """The pages of `reported` models, and of one with norms, that run the model: by name."""
    for name, one in (("0", reported(0)), ("1", reported(1)), ("2", reported(2)),
                      ("normalized", normalized(2))):
        (folder / f"living-{name}.html").write_bytes(html_file("page", living(one).data))
    return lambda name: folder / f"living-{name}.html"
