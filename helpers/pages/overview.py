"""The first page: the road with what is on it, what runs, what bills, what failed."""

from helpers.pages import endpoints, jobs, models
from helpers.pages.views import Page, Visit
from helpers.project import bills


def show(visit: Visit) -> Page:
    session = visit.session
    all_jobs, all_models, all_endpoints = (
        jobs.every(session), models.every(session), endpoints.every(session)
    )  # fmt: skip
    return Page("overview.html", {
        "jobs": all_jobs, "models": all_models, "endpoints": all_endpoints,
        "running": [job for job in all_jobs if not job["ended"]],
        "failures": [job for job in all_jobs if job["failed"]][:5],
        "bills": bills.bills(session),
    })  # fmt: skip
