"""Which role lets somebody do what: the least one, and never roles/editor.

Source: cloud.google.com/iam/docs/roles-permissions
"""

# By how a permission begins; the longest that fits counts.
LEAST = {
    "aiplatform.": "roles/aiplatform.user",
    "artifactregistry.": "roles/artifactregistry.writer",
    "artifactregistry.repositories.create": "roles/artifactregistry.admin",
    "artifactregistry.repositories.setIamPolicy": "roles/artifactregistry.admin",
    "cloudbuild.": "roles/cloudbuild.builds.editor",
    "iam.serviceAccounts.actAs": "roles/iam.serviceAccountUser",
    "iam.serviceAccounts.create": "roles/iam.serviceAccountAdmin",
    "logging.": "roles/logging.viewer",
    "resourcemanager.": "roles/browser",
    "resourcemanager.projects.setIamPolicy": "roles/resourcemanager.projectIamAdmin",
    "serviceusage.": "roles/serviceusage.serviceUsageAdmin",
    "serviceusage.services.list": "roles/serviceusage.serviceUsageViewer",
    "storage.buckets.": "roles/storage.admin",
    "storage.objects.": "roles/storage.objectUser",
}
# What a person needs every day; a job needs none of these.
CALLER = ("aiplatform.customJobs.create", "cloudbuild.builds.create", "logging.logEntries.list")
# Where the account that jobs run as, and the one that builds run as, have which role.
ACCOUNTS = {
    "project": ("roles/logging.logWriter", "roles/logging.logWriter"),
    "bucket": ("roles/storage.objectUser", "roles/storage.objectViewer"),
    "repository": ("roles/artifactregistry.reader", "roles/artifactregistry.writer"),
}
BUDGETS = "roles/billing.costsManager"  # on the billing account, not on a project


def least(permission: str) -> str:
    """The least role that has a permission; "" when this table has none."""
    begins = [begin for begin in LEAST if permission.startswith(begin)]
    return LEAST[max(begins, key=len)] if begins else ""
