"""Reports: what one look tells, and how the pages look in a real browser."""

import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import helpers
from helpers.errors import NotebookError
from helpers.looks.report import html_report, index
from tests.colab import undrawable

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1200, "height": 900}
FORM = 'EPOCHS = 5  # @param {type:"integer"}\nDATA = "own"  # @param {type:"string"}'
CELLS = [
    ("## A table", "import pandas as pd\npd.DataFrame({f'column_{n}': [n] for n in range(30)})"),
    ("## A picture", "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"),
    ("## Words", "# what it says\nprint('x' * 500)\nfor n in range(40):\n    print('line', n)"),
    ("## Warnings\n\n`code` and $a$", "import sys\nprint('careful', file=sys.stderr)\n{'a': 1.5}"),
    ("## Wait", "for n in range(9):\n    print(end=f'\\rbar {n}', flush=True)"),
]
# (luminance + 0.05) of text over that of what is behind it, as WCAG 2 defines contrast.
CONTRAST = """() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => parts(text).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const style = getComputedStyle(e), back = style.backgroundColor;
    if (style.backgroundImage !== "none") return getComputedStyle(e).getPropertyValue("--bar");
    if ((parts(back)[3] ?? 1) > 0) return back; } return "rgb(255,255,255)" };
  const rgb = text => { const c = document.createElement("canvas").getContext("2d");
    c.fillStyle = text.trim(); c.fillRect(0, 0, 1, 1);
    return c.getImageData(0, 0, 1, 1).data.join(" ") };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim()) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(rgb(behind(e)))].sort();
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName + "." + e.className,
      walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found }"""


def write(path: Path, *cells: tuple[str, str]) -> Path:
    badge = "[![Open](https://example.com/badge.svg)](https://example.com/open)"
    made = [new_markdown_cell(f"# A <small> title\n\n{badge}\n\nWhat this is.")]
    made.append(new_code_cell(FORM, metadata={"tags": ["parameters"]}))
    for text, code in cells:
        made += [new_markdown_cell(text), new_code_cell(code)]
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=made, metadata=about), path)
    return path


def measure(folder: Path, mae: float, **about) -> None:
    """metrics.json as the prototype leaves it."""
    scores = {"mae": mae, "rmse": 1.25 * mae, "r2": 0.9}
    rivals = {"trivial": {"mae": 40_000.0, "rmse": 50_000.0, "r2": 0.0}}
    report = {"data": "sales", "target": "earned", "task": "regression", "unit": "$", "epochs": 5}
    report |= {"rows_test": 400, "noise_mae": 3_600.0, "metrics": scores, "baselines": rivals}
    (folder / "prototype").mkdir(parents=True, exist_ok=True)
    (folder / "prototype" / "metrics.json").write_text(json.dumps(report | about))


def words(page: Path) -> str:
    """What a page says, without its markup."""
    body = page.read_text(encoding="utf-8").split("</head>")[1]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """A folder of reports: one that ran, one that failed, one that only shows things; an index."""
    folder = tmp_path_factory.mktemp("reports")
    measure(folder, 9_000.0, epochs=2)
    index(folder)
    measure(folder, 8_100.0)
    source = write(folder / "source.ipynb", *CELLS)
    helpers.run_notebook(source, folder / "a_ran.ipynb", {"EPOCHS": 7})
    bad = write(
        folder / "source.ipynb", CELLS[0], ("## It breaks", "raise ValueError('no <such> row')")
    )
    with pytest.raises(NotebookError):
        helpers.run_notebook(bad, folder / "b_failed.ipynb")
    links = {
        "Training job": '<a href="http://127.0.0.1:1/j">job-1</a> SUCCEEDED',
        "Model": '<a href="http://127.0.0.1:1/m">earned</a> version 2 (v2)',
        "Endpoint": '<a href="http://127.0.0.1:1/e">earned</a> · version 2: 100 %',
    }
    for name, kinds in [("c_train", ["Training job", "Model"]), ("d_deploy", ["Model", "Endpoint"]),
                        ("e_ask", ["Endpoint"])]:  # fmt: skip
        notebook = nbformat.read(write(folder / "source.ipynb"), as_version=4)
        notebook.cells[1].execution_count = 1
        for count, kind in enumerate(kinds, 2):
            shown = {"text/html": f"{kind} {links[kind]}", "text/plain": kind}
            output = new_output("execute_result", data=shown, execution_count=count)
            cell = new_code_cell(kind.split()[0], outputs=[output], execution_count=count)
            notebook.cells.append(cell)
        nbformat.write(notebook, folder / f"{name}.ipynb")
        html_report(folder / f"{name}.ipynb", folder / f"{name}.html")
    index(folder, {"Best <possible>": "$3,600"})
    return folder


@pytest.fixture
def visit(browser, pages):
    """Opens a page; gives it, what its console said and what it asked the network for."""
    opened = []

    def go(name: str | Path, scheme: str = "light", size: dict = DESK) -> tuple:
        context = browser.new_context(color_scheme=scheme, viewport=size, offline=True)
        opened.append(context)
        page, said, asked = context.new_page(), [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((pages / name).as_uri())
        return page, said, [url for url in asked if not url.startswith("data:")]

    yield go
    for context in opened:
        context.close()


# What a page says


def test_a_page_tells_what_ran_with_which_parameters_and_how_long(pages):
    said = words(pages / "a_ran.html")
    assert "A &lt;small&gt; title ran" in said
    assert "EPOCHS 7" in said
    assert "DATA &quot;own&quot;" in said or 'DATA "own"' in said
    assert len(re.findall(r"Code \d+ [\d.]+ s", said)) == 7  # one more: the parameters given
    assert "badge.svg" not in (pages / "a_ran.html").read_text()


def test_outputs_come_before_code_and_long_logs_are_folded(pages):
    text = (pages / "a_ran.html").read_text(encoding="utf-8")
    assert text.index("column_29") < text.index("DataFrame")
    assert "41 lines printed" in text
    assert "1 line logged" in text
    assert text.count("<details") == 7 + 3  # a log, warnings, the other parameters
    assert "bar 8" in text
    assert "bar 7" not in text
    assert "<details open" not in text


def test_a_failed_page_opens_at_the_cell_that_raised(pages):
    said, text = words(pages / "b_failed.html"), (pages / "b_failed.html").read_text()
    assert "failed" in said
    assert "cell 3 raised ValueError: no &lt;such&gt; row" in said
    assert text.count('<details open=""') == 1
    assert "An Exception was encountered" not in text


def test_the_index_sets_a_run_against_the_last_one_and_the_baselines(pages):
    said = words(pages / "index.html")
    for row in [
        "earned from sales, 400 test rows",
        "this run 8,100",
        "9,000 10 % better 11,250 0.9",
        "epochs 2",
        "trivial 40,000 80 % better 50,000 0",
        "noise alone (the limit) 3,600 120 % worse",
        "Best &lt;possible&gt; $3,600",
    ]:
        assert row in said, said


def test_a_run_seen_twice_is_one_run_and_other_data_is_no_last_run(tmp_path):
    measure(tmp_path, 9_000.0)
    index(tmp_path)
    assert "last run" not in words(index(tmp_path))
    measure(tmp_path, 5.0, data="other")
    assert "last run" not in words(index(tmp_path))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_accuracy_is_compared_in_points(tmp_path):
    report = {"task": "binary", "unit": "", "noise_mae": None}
    scores = {"accuracy": 0.9, "log_loss": 0.3}
    rivals = {"linear": {"accuracy": 0.95, "log_loss": 0.2}}
    measure(tmp_path, 0, **report, metrics=scores, baselines=rivals)
    assert "linear 0.95 5 points worse 0.2" in words(index(tmp_path))


def test_no_reports_no_metrics(tmp_path):
    assert words(index(tmp_path)) == "Reports Ran"


def test_stages_are_linked(pages):
    text = (pages / "index.html").read_text(encoding="utf-8")
    road = text.split('class="road"')[1].split("</ol>")[0]
    assert re.findall(r'href="(\w+\.html)#', road) == [
        "c_train.html", "c_train.html", "d_deploy.html", "d_deploy.html", "e_ask.html",
    ]  # fmt: skip
    for page in pages.glob("*.html"):
        for file, anchor in re.findall(r'href="([\w.]*)#([\w-]+)"', page.read_text()):
            assert f'id="{anchor}"' in (pages / (file or page.name)).read_text(), (page, anchor)
        for file in re.findall(r'href="([\w.]+)"', page.read_text()):
            assert (pages / file).is_file(), file
    assert '<a href="d_deploy.html" aria-current="page">' in (pages / "d_deploy.html").read_text()


def test_what_colab_can_not_draw_is_seen(pages):
    ran = nbformat.read(pages / "a_ran.ipynb", as_version=4)
    assert undrawable(ran) == []
    wide, long = pd.DataFrame([range(40)]), pd.DataFrame(range(100))
    for kind, text in [
        ("application/vnd.jupyter.widget-view+json", {"model_id": "1"}),
        ("text/html", "<script>draw()</script>"),
        ("text/html", wide.to_html()),
        ("text/html", long.to_html()),
    ]:
        ran.cells[4].outputs = [new_output("display_data", data={kind: text})]
        assert len(undrawable(ran)) == 1


def test_a_page_can_ask_nobody(pages):
    for page in pages.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "default-src 'none'" in text
        assert "<script" not in text
        assert not re.findall(r"""(?:src|srcset|data)=["'](?!data:)|url\(|@import""", text)
        assert not re.findall(r"<(?:link|iframe|object|embed|video|audio)\b", text)


# What a browser shows


@pytest.mark.parametrize("name", ["index.html", "a_ran.html", "b_failed.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_quiet_and_its_words_stand_out(visit, name, scheme):
    page, said, asked = visit(name, scheme)
    assert said == []
    assert len(asked) == 1  # itself
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    found = page.evaluate(CONTRAST)
    assert len(found) > 20
    assert [text for text in found if text[0] < 4.5] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("name", ["index.html", "a_ran.html", "b_failed.html", "d_deploy.html"])
def test_a_phone_never_scrolls_sideways(visit, name):
    page, *_ = visit(name, size=PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_code_is_folded_and_outputs_are_seen(visit):
    page, *_ = visit("a_ran.html")
    code = page.locator("section > details .highlight")
    assert code.count() == 7
    assert not any(code.nth(n).is_visible() for n in range(7))
    page.locator("section > details > summary").nth(1).click()
    assert code.nth(1).is_visible()
    times = page.locator("section > details > summary > time").all_inner_texts()
    assert all(re.fullmatch(r"\d+\.\d s", time) for time in times)
    assert len(times) == 7
    assert page.evaluate("document.images[0].naturalWidth") > 100
    assert page.locator("table").first.is_visible()
    assert page.locator(".strip a").count() >= 5


def test_every_output_is_drawn_as_a_notebook_editor_draws_it(visit, pages, tmp_path):
    """Jupyter's own template stands in for Colab's eye: it draws each output from the same data."""
    blank = "{% block html_head_js %}{% endblock %}{% block html_head_js_mathjax %}{% endblock %}"
    exporter = HTMLExporter(raw_template="{% extends 'lab/index.html.j2' %}" + blank)
    ran = nbformat.read(pages / "a_ran.ipynb", as_version=4)
    (tmp_path / "lab.html").write_text(exporter.from_notebook_node(ran)[0], encoding="utf-8")
    page, *_ = visit(tmp_path / "lab.html")
    heights = page.evaluate(
        "[...document.querySelectorAll('.jp-OutputArea-output')].map(e => e.clientHeight)"
    )
    assert len(heights) == sum(len(cell.get("outputs", [])) for cell in ran.cells)
    assert min(heights) > 0


def test_what_cells_show_runs_no_script_and_fetches_nothing(visit, tmp_path):
    notebook = nbformat.read(write(tmp_path / "source.ipynb", ("## Shown", "1")), as_version=4)
    script = "<script>document.title = 'ran'</script>"
    shown = {"text/html": f"{script}<img src='https://example.com/a'>"}
    notebook.cells[-1].outputs = [new_output("display_data", data=shown)]
    nbformat.write(notebook, tmp_path / "a.ipynb")
    page, said, asked = visit(html_report(tmp_path / "a.ipynb", tmp_path / "a.html"))
    assert page.title() == "A <small> title"
    assert asked[1:] == ["https://example.com/a"]
    assert len([line for line in said if "Content Security Policy" in line]) == 2
