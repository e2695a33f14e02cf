"""A trained model as TensorFlow Serving takes it, and scored in memory.

    python -m helpers.learning.export model.keras FOLDER

does so with a model in a file.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from helpers.errors import DataError, SchemaError, SettingError
from helpers.inputs import examples as held_out
from helpers.inputs import metrics, schema, signature
from helpers.inputs.answers import answer_frame
from helpers.learning import serving
from helpers.learning.encoding import columns

GENERIC = r"(keras_tensor|input_layer|input|args|inputs)(_\d+)?"


def export(
    model,
    table=None,
    folder: str | os.PathLike | None = None,
    *,
    serve=None,
    examples=None,
) -> Path:
    """Write a model as TensorFlow Serving takes it, with `serving_default` to call it by.

    Prints the names that clients send. Where all inputs are numbers of a fixed shape, a second
    signature takes rows as bytes, for `helpers.predict` in bulk.

    Args:
        model: a Keras model, a `.keras` file, or the folder of a SavedModel, which is copied.
        table: for a model between `encode` and `decode`: its inputs are one scalar a column, its
            outputs the target, or the class and one probability a class, and `assets.extra/`
            describes both (see schema.py).
        folder: where to; default: `model/` in the job's folder (the environment variable
            OUTPUT_DIR), else in the current one.
        serve: what is to be served instead of the model's own call: a function of tensors, one
            argument an input, that calls the model and gives a tensor or a dict of them. An
            argument named `…_bytes` is a (n,) string; others need examples, an annotation
            (`image: tf.TensorSpec([None, 28, 28], tf.uint8)`) or a `tf.function`'s
            `input_signature`.
        examples: (x, y), held-out inputs and their truth, of which up to 1,000 travel with the
            model; for a table how many of its test rows (default 1,000; 0 leaves them out).
    Returns:
        `folder`/1; what was there before is replaced once the new model is complete.
    Raises:
        SettingError: there is nothing here to export, or it has to be said what it takes.
        SchemaError: an example does not fit the model, or the model refuses it.
        DataError: the SavedModel has no signatures.
    """
    place = Path(os.environ.get("OUTPUT_DIR") or ".", "model") if folder is None else Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=place) as beside:
        made = Path(beside, "1")
        if table is not None:
            module, signatures = serving.of_table(model, table)
            tf.saved_model.save(module, str(made), signatures=signatures)
            _describe(made, table)
        elif (found := _saved_model(model)) is not None:
            shutil.copytree(found, made)
        else:
            model = _live(model)
            examples = examples if serve else serving.named_examples(model, examples)
            x = examples[0] if isinstance(examples, tuple | list) and examples else None
            module, signatures = serving.of_model(model, serve, x)
            tf.saved_model.save(module, str(made), signatures=signatures)
        served = _served(made, Path(beside, "whole"))
        lines = list(_examples(made, served, table, examples))
        if (place / "1").exists():
            (place / "1").rename(Path(beside, "old"))
        target = made.rename(place / "1")
    held_out.write(place, lines)
    _tell(target, served, len(lines), named=table is not None)
    return target


def scores(model: keras.Model, table, frame: pd.DataFrame) -> pd.DataFrame:
    """Score rows with a model in memory; same form as `helpers.predict`.

    Returns:
        (n, 1) answers in the target's unit, or (n, 1 + classes): the class and a probability each.
    """
    parts = tf.data.Dataset.from_tensor_slices(columns(table, frame)).batch(1024)
    answers = np.concatenate([model(part, training=False).numpy() for part in parts])
    return answer_frame(table.target, table.classes, answers, frame.index)


def _saved_model(model) -> Path | None:
    """The folder of a SavedModel, if that is what was given."""
    if not isinstance(model, str | os.PathLike) or Path(model).suffix in (".keras", ".h5"):
        return None
    for folder in (Path(model), Path(model, "1")):
        if (folder / "saved_model.pb").is_file():
            return folder
    raise SettingError(
        f"{model} is neither a .keras file nor the folder of a SavedModel (saved_model.pb). Save "
        "the model there first, or give the model itself."
    )


def _live(model):
    """The model in memory, read from its file if that is what was given."""
    if isinstance(model, str | os.PathLike):
        if not Path(model).is_file():
            raise SettingError(f"{model} does not exist; expected a .keras file, or a model.")
        try:
            return keras.saving.load_model(model, compile=False)
        except Exception as error:
            raise SettingError(
                f"{model} can't be loaded: {_reason(error)} If it holds layers or functions of "
                "your own, import their module first and mark each with "
                "@keras.saving.register_keras_serializable(), or export the model in memory."
            ) from error
    if isinstance(model, keras.layers.Layer | tf.Module):
        return model
    kind = f"{type(model).__module__}.{type(model).__name__}"
    hint = "Keras models, .keras files and SavedModels are what it takes."
    if kind.startswith("sklearn."):
        hint = (
            "TensorFlow Serving can't serve it: upload its model.joblib with Vertex AI's "
            "prebuilt scikit-learn container (gcloud ai models upload)."
        )
    raise SettingError(f"helpers.export can't export a {kind}. {hint}")


def _reason(error: Exception) -> str:
    """Keras's own, which it puts below what it was doing, without the object's whole settings."""
    said = str(error).rpartition("Exception encountered: ")[2].strip() or type(error).__name__
    said = re.split(r"Make sure custom|Full object config", said.splitlines()[0])[0]
    said = textwrap.shorten(said, 300, placeholder=" …")
    return said if said.endswith((".", "!")) else f"{said}."


def _served(made: Path, whole: Path) -> signature.Signature:
    """What clients call; a SavedModel whose signatures have other names gets it beside them."""
    found = _read(made).signatures
    if not found:
        raise DataError(
            "The SavedModel has no signatures, so nobody can call it. Export the Keras model, or "
            "save it with signatures={'serving_default': …}."
        )
    if signature.DEFAULT not in found:
        first = next(iter(found))
        print(f'serving_default is its signature "{first}".')
        loaded = tf.saved_model.load(str(made))
        all_of_it = {name: loaded.signatures[name] for name in found}
        all_of_it[signature.DEFAULT] = all_of_it[first]
        tf.saved_model.save(loaded, str(whole), signatures=all_of_it)
        shutil.rmtree(made)
        whole.rename(made)
        found = _read(made).signatures
    return found[signature.DEFAULT]


def _read(made: Path) -> signature.SavedModel:
    return signature.read((made / "saved_model.pb").read_bytes())


def _describe(made: Path, table) -> None:
    instance = schema.instance(table) | {"x-tensorflow": tf.__version__}
    (made / "assets.extra").mkdir()
    for name, about in {"instance": instance, "prediction": schema.prediction(table)}.items():
        (made / "assets.extra" / f"{name}.yaml").write_text(json.dumps(about, indent=1))


def _examples(made: Path, served: signature.Signature, table, asked):
    """The lines of examples.jsonl; rows that the caller gives are tried on the model first."""
    if table is not None:
        most = held_out.MOST if asked is None else asked
        if type(most) is not int or not 0 <= most <= held_out.MOST:
            raise SettingError(
                f"examples={asked!r}: expected how many of the table's test rows, 0 to "
                f"{held_out.MOST}."
            )
        if table.target not in table.test:  # rows without their truth are no examples
            return
        frame = table.test.iloc[held_out.choose(len(table.test), most)]
        rows = schema.filled(table, frame)
        yield from held_out.lines(rows, frame[table.target].to_numpy(), bare=False)
    elif asked is not None:
        rows, truth = held_out.fitted(asked, served)
        _compare(truth, _try(made, served, rows))
        yield from held_out.lines(rows, truth, bare=len(rows) == 1)


def _try(
    made: Path, served: signature.Signature, rows: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Put rows through the model as it was saved; what it answers to the first of them."""
    call = tf.saved_model.load(str(made)).signatures[signature.DEFAULT]
    fixed = next(iter(served.inputs.values())).shape[0]

    def run(start: int, stop: int) -> dict:
        return call(**{
            name: tf.constant(values[start:stop].tolist(), served.inputs[name].dtype)
            for name, values in rows.items()
        })  # fmt: skip

    first: dict = {}
    count = len(next(iter(rows.values())))
    step = fixed or 32
    for start in range(0, count - count % step if fixed else count, step):
        try:
            found = run(start, start + step)
            first = first or found
        except (tf.errors.OpError, TypeError, ValueError) as error:
            place, said = start, _said(error)
            for place in range(start, min(start + step, count) if not fixed else start):
                try:
                    run(place, place + 1)
                except tf.errors.OpError as alone:
                    said = _said(alone)
                    break
            raise SchemaError(
                f"The model refuses example {place}: {said} Fix the model, or leave that example "
                "out."
            ) from error
    return {name: values.numpy() for name, values in first.items()}


def _compare(truth, answers: dict[str, np.ndarray]) -> None:
    """Say so where truth and answers are of different kinds; the model is served all the same."""
    rows = min((len(values) for values in answers.values() if values.ndim), default=0)
    known = truth if isinstance(truth, dict) else {"": truth}
    known = {name: values[:rows] for name, values in known.items()}
    try:
        metrics.score(known if isinstance(truth, dict) else known[""], answers)
    except SettingError as error:
        print(f"By these examples versions can't be compared. {error}")


def _said(error: Exception) -> str:
    """The line of TensorFlow's message that says something."""
    noise = r"Graph execution error|Detected at node|<stack|\s*\[\[|\d+ root error|\s*\(\d+\)"
    found = [line for line in str(error).splitlines() if line and not re.match(noise, line)]
    return re.sub(r"\s*\[Op:.*", "", found[0])[:300] if found else type(error).__name__


def _tell(target: Path, served: signature.Signature, examples: int, *, named: bool) -> None:
    """The names that clients send, and how to choose those that nobody chose."""
    print(f"Model: {target}")
    print(f"It takes {served}" + (f"; {examples:,} held-out examples" if examples else ""))
    generic = [name for name in served.inputs if re.fullmatch(GENERIC, name)]
    if generic and not named:
        print(
            f'Nobody chose the name "{generic[0]}": keras.Input(…, name="image") does, or an '
            "argument of serve=."
        )


if __name__ == "__main__":
    export(*sys.argv[1:2], folder=sys.argv[2])
