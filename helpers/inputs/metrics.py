"""The numbers of a metrics.json, as a tuning job can choose by them."""


def reported(measured: dict) -> dict[str, float]:
    """The numbers of a metrics.json by name, those under `metrics` first."""
    named = measured | measured.get("metrics", {})
    return {key: value for key, value in named.items() if type(value) in (int, float)}
