"""The README's table of methods is the list of routes."""

import re
from pathlib import Path

import helpers.emulator
from helpers.emulator.front import app, discovery


def test_the_table_names_every_method_and_no_other():
    app.App(None)
    text = (Path(helpers.emulator.__file__).parent / "README.md").read_text()
    effect = "real|kept, without effect|accepted, without effect"
    table = re.findall(rf"^\| `([\w.]+)` \| (?:{effect}) \|$", text, re.MULTILINE)
    assert sorted(table) == sorted(discovery.HANDLERS)
