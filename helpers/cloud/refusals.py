"""What a person does about a refusal of Google's."""

import re

# The least role that holds a permission, by how the permission begins.
ROLES = {
    "aiplatform.": "roles/aiplatform.user",
    "artifactregistry.": "roles/artifactregistry.writer",
    "cloudbuild.": "roles/cloudbuild.builds.editor",
    "iam.serviceAccounts.actAs": "roles/iam.serviceAccountUser",
    "logging.": "roles/logging.viewer",
    "resourcemanager.": "roles/browser",
    "serviceusage.": "roles/serviceusage.serviceUsageAdmin",
    "storage.buckets.": "roles/storage.admin",
    "storage.objects.": "roles/storage.objectUser",
}


LASTING = "exceed quota limits"  # a quota of machines: asking again in a minute does not help


CONSOLE = "https://console.cloud.google.com"


def next_step(status: int, text: str, project: str, location: str) -> str:
    """What a person does about a refusal of Google's, as a sentence; "" when its words must do."""
    said = text.lower()
    if status == 401:
        return (
            "You are signed in no more: in Colab run the connect cell again, elsewhere first "
            "`gcloud auth application-default login`. What was under way goes on: run this cell "
            "again, or helpers.cleanup to end it."
        )
    if status in (400, 403) and "billing" in said:
        return f"Link a billing account: {CONSOLE}/billing/linkedaccount?project={project}"
    if status == 403 and ("has not been used" in said or "is disabled" in said):
        return "Run 00_setup.ipynb with APPLY = True: it enables the service."
    if status == 403:
        begins = "|".join(key.split(".")[0] for key in ROLES)
        missing = re.search(rf"\b({begins})\.(?!googleapis)\w+\.\w+", text)
        role = missing and next((r for b, r in ROLES.items() if missing[0].startswith(b)), "")
        if role:
            return (
                f"You lack {missing[0]}. An administrator runs: gcloud projects add-iam-policy-"
                f"binding {project} --member=user:YOUR_EMAIL --role={role}"
            )
    if status == 429 and LASTING in text:
        return (
            f"Ask for more: {CONSOLE}/iam-admin/quotas?project={project}, or take another "
            "machine_type or LOCATION."
        )
    if status == 404 and "bucket does not exist" in said:
        return "Run 00_setup.ipynb with APPLY = True, or set BUCKET to one that exists."
    if status in (0, 400, 404) and re.search("region|location|unable to find the server", said):
        where = "https://cloud.google.com/vertex-ai/docs/general/locations"
        return f'LOCATION="{location}"; the regions that exist: {where}'
    return ""
