"""One call to an endpoint, which may have to wake up first."""

from helpers.cloud.client import RETRIED, Session
from helpers.errors import CloudError

WAKING = 400  # tries while a machine starts; with the pauses between them, 20 minutes


def post(
    session: Session, url: str, verb: str, body: str | bytes, *, host: str = "",
    timeout_s: float = 60, waking: int = WAKING,
) -> dict:  # fmt: skip
    """POST a body to an endpoint and give its JSON answer.

    Args:
        url: the endpoint's address, without a verb.
        host: the header of that name that a dedicated endpoint needs.
        waking: tries while the machine of an endpoint at zero starts.
    Raises:
        CloudError: refused; the server's words are in the message.
    """
    woken = []

    def patience(error: CloudError) -> int:
        if not (woken or (error.status == 429 and "scale-up from zero" in str(error))):
            return 0
        if not woken:
            print("The endpoint had scaled to zero; its machine starts again (minutes) …")
            woken.append(error)
        return waking if error.status in {0, *RETRIED} else 0

    method = f"aiplatform.projects.locations.endpoints.{verb}"
    try:
        return session.post(
            f"{url}:{verb}", body, method=method, timeout_s=timeout_s, host=host, patience=patience
        )
    except UnicodeDecodeError as error:
        raise CloudError(
            f"{method}: the answer is no UTF-8 text. An output that holds other bytes must have a "
            "name that ends in _bytes: export the model so.",
            method=method,
        ) from error
