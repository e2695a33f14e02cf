"""Preconditions of Cloud Storage: on generations in the query, on etags in headers."""

from collections.abc import Mapping

from helpers.emulator.front.calls import ApiError

FAILED = "At least one of the pre-conditions you specified did not hold."


def check(
    found: dict | None, query: Mapping, headers: Mapping | None = None, *, prefix: str = "if",
    reading: bool = False,
) -> None:  # fmt: skip
    """Refuse a call whose conditions a resource does not meet (None: it is not there).

    Args:
        prefix: "ifSource" for those on the source of a copy.
        reading: of a call that changes nothing: what is as the caller has it answers 304.
    Raises:
        ApiError: 412, or 304.
    """
    for what in ("generation", "metageneration"):
        actual = found[what] if found else "0"
        name = f"{prefix}{what.capitalize()}"
        if query.get(f"{name}Match", actual) != actual:
            raise ApiError(412, f"{FAILED} ({name}Match={query[f'{name}Match']}, found {actual})")
        if query.get(f"{name}NotMatch") == actual:
            raise _as_it_was(f"{name}NotMatch={actual}", reading)
    wanted, unwanted = (_etags((headers or {}).get(n, "")) for n in ("if-match", "if-none-match"))
    if wanted and not _meets(found, wanted):
        raise ApiError(412, f"{FAILED} (If-Match)")
    if _meets(found, unwanted):
        raise _as_it_was("If-None-Match", reading)


def _as_it_was(condition: str, reading: bool) -> ApiError:
    return ApiError(304 if reading else 412, f"{FAILED} ({condition})")


def _etags(header: str) -> list[str]:
    return [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",") if tag.strip()]


def _meets(found: dict | None, etags: list[str]) -> bool:
    return found is not None and ("*" in etags or found["etag"] in etags)
