"""What training prints: few lines, which a person reads and whoever follows a job counts."""

import re
from types import SimpleNamespace

import pytest

import helpers

REGRESSION = SimpleNamespace(task="regression", unit="$")
CLASSES = SimpleNamespace(task="binary", unit="")
LOGS = {"loss": 0.4, "mae": 1234.5, "val_loss": 0.5, "val_mae": 2345.6}


def told(table, epochs: int, capsys, first: int = 0) -> list[str]:
    said = helpers.progress(table)
    said.set_params({"epochs": epochs})
    said.on_train_begin()
    for epoch in range(first, epochs):
        said.on_epoch_end(epoch, LOGS)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("epochs", [1, 5, 10, 50, 99, 1000])
def test_training_says_little_and_always_its_end(epochs, capsys):
    lines = told(REGRESSION, epochs, capsys)
    assert len(lines) == min(epochs, 10)
    numbers = [re.match(r"Epoch (\d+)/(\d+)", line).groups() for line in lines]
    assert numbers[-1] == (str(epochs), str(epochs))
    assert lines[-1].endswith("mean error on training rows $1.2 k, on test rows $2.3 k")


def test_training_that_goes_on_counts_on(capsys):
    assert told(CLASSES, 20, capsys, first=18) == [
        "Epoch 20/20: log loss on training rows 0.4, on test rows 0.5"
    ]
