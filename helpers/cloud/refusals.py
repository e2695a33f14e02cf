"""What a person does about a refusal of Google's."""

import re

from helpers.cloud.pages import REGIONS, page
from helpers.cloud.roles import LEAST, least

LASTING = "exceed quota limits"  # a quota of machines: asking again in a minute does not help


def next_step(status: int, text: str, project: str, location: str) -> str:
    """What a person does about a refusal of Google's, as a sentence; "" when its words must do."""
    said = text.lower()
    if status == 401:
        return (
            "Your sign-in has ended. In Colab run the connect cell again; elsewhere first run "
            "`gcloud auth application-default login`. What was under way goes on: run this cell "
            "again, or end it with helpers.cleanup."
        )
    if status in (400, 403) and "billing" in said:
        return f"Link a billing account: {page('billing', '', project, location)}"
    if status == 403 and ("has not been used" in said or "is disabled" in said):
        return "Run 00_setup.ipynb with APPLY = True: it enables the service."
    if status == 403:
        services = "|".join({begin.split(".")[0] for begin in LEAST})
        lacking = re.search(rf"\b({services})\.(?!googleapis)\w+\.\w+", text)
        role = least(lacking[0]) if lacking else ""
        if role:
            return (
                f"You lack {lacking[0]}. An administrator runs: gcloud projects add-iam-policy-"
                f"binding {project} --member=user:YOUR_EMAIL --role={role}"
            )
    if status == 429 and LASTING in text:
        return (
            f"Ask for more: {page('quota', '', project, location)}, or take another "
            "machine_type or LOCATION."
        )
    if status == 404 and "bucket does not exist" in said:
        return "Run 00_setup.ipynb with APPLY = True, or set BUCKET to one that exists."
    if status in (0, 400, 404) and re.search("region|location|unable to find the server", said):
        return f'LOCATION="{location}"; the regions that exist: {REGIONS}'
    return ""
