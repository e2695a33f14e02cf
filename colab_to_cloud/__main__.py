"""Find this project's `helpers` and say where it is; a foreign one is refused before it runs.

    python -m colab_to_cloud

The first code cell of a notebook runs it, with the release it was written for in `wanted`.
"""

from importlib import machinery, metadata, util
from pathlib import Path

wanted = globals().get("wanted", "")
installed = [found.version for found in metadata.distributions(name="colab-to-cloud")]
here = Path(__file__).parents[1]
found = getattr(util.find_spec("helpers"), "submodule_search_locations", None) or ["nowhere"]
if not machinery.PathFinder.find_spec("notebooks", found):
    raise ImportError(
        f"helpers is in {found[0]}, another package of that name; colab-to-cloud's is in {here}. "
        "Rename the other one, or run in another folder."
    )
if wanted and installed and wanted not in installed:
    raise ImportError(
        f"colab-to-cloud {installed[0]} is in {here}; this notebook needs {wanted}. In Colab: "
        "Runtime → Disconnect and delete runtime, and run it again."
    )
print(f"colab-to-cloud {(installed or ['as checked out'])[0]} is ready, in {Path(found[0]).parent}")
