"""The notebook that is being edited, as its editor has it."""

import os
import sys

import nbformat

from helpers.cells.notebook_file import find_notebook
from helpers.errors import NotebookError, SettingError


def being_edited(name: str) -> tuple[str, nbformat.NotebookNode]:
    """Its name and content: Colab hands it over, elsewhere it is the file.

    Args:
        name: its file; "" asks the editor.
    Raises:
        SettingError: the editor does not tell which file this is.
        NotebookError: Colab did not hand it over.
    """
    if "google.colab" in sys.modules:
        return _from_colab(name)
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    told = shell.user_ns.get("__vsc_ipynb_file__") if shell else ""
    name = name or told or os.environ.get("JPY_SESSION_NAME", "")
    if not name:
        raise SettingError(
            "This editor does not tell which file the notebook is. "
            'Name it: helpers.save_notebook(session, "01_prototype.ipynb").'
        )
    path = find_notebook(name).path
    return path.name, nbformat.read(path, as_version=4)


def _from_colab(name: str) -> tuple[str, nbformat.NotebookNode]:
    from google.colab import _message

    try:
        answer = _message.blocking_request("get_ipynb", request="", timeout_sec=30)
    except Exception as error:  # Colab's own MessageError: the page's error reply
        raise NotebookError(
            f"Colab's page answered with an error ({error}). Save the notebook there "
            "(File > Save), reload the page, then run this cell again."
        ) from error
    if not (answer and answer.get("ipynb", {}).get("cells")):
        raise NotebookError("Colab did not hand over the notebook. Keep its tab open, try again.")
    known = answer["ipynb"].get("metadata", {}).get("colab", {}).get("name", "")
    return name or known or "notebook.ipynb", nbformat.from_dict(answer["ipynb"])
