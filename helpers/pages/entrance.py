"""The application: it decides who may look and which page to show, and says what goes wrong."""

import asyncio
import hmac
import logging
import os
import re
import secrets
import time
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from anyio.to_thread import current_default_thread_limiter
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from helpers.cloud.console import VALID_S, sign
from helpers.errors import CloudError, HelpersError, NotFoundError
from helpers.pages import routes
from helpers.pages.views import Confirm, Done, Page, Session, Visit, environment

log = logging.getLogger("helpers.console")
HOSTS = {"127.0.0.1", "localhost", "[::1]"}
# Under Colab's proxy a page has a host of Google's; other proxies are named by CONSOLE_HOSTS.
PROXIES = (".googleusercontent.com",) if "COLAB_RELEASE_TAG" in os.environ else ()
PROXIES += tuple(filter(None, os.environ.get("CONSOLE_HOSTS", "").split(",")))
THREADS = 6  # each keeps a connection to the cloud
BODY_BYTES = 16 * 2**20
STATIC = {"app.js": "text/javascript", "style.css": "text/css"}
SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


PREFIX = re.compile(r"^(?!/(?:p|enter|static)(?:/|$))/.*?(?=/(?:p|enter|static)(?:/|$))")


class RefusedError(Exception):
    """A refused request: its status and what to do."""


class App:
    """The console behind its socket."""

    def __init__(self, session: Session, secret: str, state: Path | None):
        self.session, self.secret, self.state = session, secret, state
        self.templates = environment()
        self.visitors: dict[str, list[str]] = {}  # by cookie: what its next page will say
        self.used: dict[str, float] = {}  # one-time addresses, until they would be too old
        self._sessions = {(session.project, session.location): session}
        here = Path(__file__).with_name("static")
        self.static = {name: (here / name).read_bytes() for name in STATIC}

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        current_default_thread_limiter().total_tokens = THREADS
        request = Request(scope, receive)
        # A proxy may leave its prefix in the path; every link is relative, so that it is kept.
        path = PREFIX.sub("", scope["path"])
        try:
            response = await self._answer(request, path)
        except RefusedError as error:
            response = self._problem(request, path, *error.args)
        except ClientDisconnect:
            return
        for name, value in SAFE.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _answer(self, request: Request, path: str) -> Response:
        host = re.sub(r":\d+$", "", request.headers.get("host", "").lower())
        if host not in HOSTS and not (PROXIES and host.endswith(PROXIES)):
            raise RefusedError(421, "This host is not the console's; open it by 127.0.0.1.")
        if path.startswith("/static/") and path[8:] in STATIC:
            return Response(self.static[path[8:]], media_type=STATIC[path[8:]])
        if path == "/enter":
            return self._enter(request)
        visitor = request.cookies.get(self._cookie, "")
        if visitor not in self.visitors:
            if request.headers.get("sec-fetch-site") == "cross-site" and request.method == "GET":
                return _again("")  # a Strict cookie comes only when the console itself leads here
            raise RefusedError(
                401, "This browser has not been let in. Open the console by an address of "
                "helpers.console(session), or of `python -m helpers.console` in a terminal.",
            )  # fmt: skip
        form = None
        if request.method == "POST":
            form = await self._form(request, visitor)
        elif request.method not in ("GET", "HEAD"):
            raise RefusedError(405, "Pages are read and forms are posted; nothing else.")
        if path == "/":
            to = f"p/{self.session.project}/{self.session.location}/"
            return RedirectResponse(to, 303)
        return await self._page(request, path, visitor, form)

    @property
    def _cookie(self) -> str:
        return f"console-{sign(self.secret, '')[-8:]}"  # cookies know no ports, so names differ

    def _enter(self, request: Request) -> Response:
        """Exchange a one-time address for a cookie, then go on to the page it is for."""
        code, to = request.query_params.get("code", ""), request.query_params.get("to", "")
        if not re.fullmatch(r"p/[\w.:-]+/[\w-]+/[\w./%@?=&~:+-]*", to):
            to = f"p/{self.session.project}/{self.session.location}/"
        response = _again(to)
        if request.cookies.get(self._cookie) in self.visitors:
            return response
        begun = code.partition("-")[0]
        fresh = re.fullmatch("[0-9a-f]{8,12}", begun) and time.time() - int(begun, 16) < VALID_S
        signed = hmac.compare_digest(
            sign(self.secret, code.rpartition(".")[0]).encode(), code.encode()
        )
        if not (fresh and signed) or code in self.used:
            if request.headers.get("sec-fetch-site") == "cross-site" and "again" not in code:
                return _again(f"enter?{urlencode({'code': 'again', 'to': to})}")
            raise RefusedError(
                401, "This address has been used, or is too old. Get another one: "
                "helpers.console(session), or `python -m helpers.console` in a terminal.",
            )  # fmt: skip
        old = time.time() - VALID_S
        self.used = {key: at for key, at in self.used.items() if at > old} | {code: time.time()}
        visitor = secrets.token_urlsafe(24)
        self.visitors[visitor] = []
        response.set_cookie(self._cookie, visitor, httponly=True, samesite="strict", path="/")
        return response

    async def _form(self, request: Request, visitor: str) -> dict[str, str]:
        """What a form of one of our own pages sent."""
        site, origin = (request.headers.get(name) for name in ("sec-fetch-site", "origin"))
        own = origin is None or origin.partition("//")[2] == request.headers["host"]
        if site != "same-origin" if site else not own:
            raise RefusedError(403, "This form comes from another site.")
        raw = bytearray()
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > BODY_BYTES:
                raise RefusedError(413, f"The form holds more than {BODY_BYTES >> 20} MB.")
        pairs = parse_qsl(raw.decode(errors="replace"), keep_blank_values=True)
        form = dict(pairs)
        given = form.pop("token", "").encode()
        if not hmac.compare_digest(given, self._token(visitor).encode()):
            raise RefusedError(403, "The form's token is missing or old. Load its page again.")
        return form

    def _token(self, visitor: str) -> str:
        return sign(self.secret, f"form-{visitor}").rpartition(".")[2]

    async def _page(self, request: Request, path: str, visitor: str, form: dict | None) -> Response:
        found = routes.find(path)
        if found is None:
            raise RefusedError(404, "There is no such page.")
        view, values = found
        place = (values.pop("project"), values.pop("location"))
        visit = Visit(self._at(*place), values, request.query_params, form, self.state)
        if asyncio.iscoroutinefunction(view):
            return await view(visit, self._fragments(path))
        try:
            result = await run_in_threadpool(view, visit)
        except CloudError as error:
            lost = error.status in (0, 503)
            raise RefusedError(404 if error.status == 404 else 502, str(error), lost) from error
        except NotFoundError as error:
            raise RefusedError(404, str(error)) from error
        except HelpersError as error:
            raise RefusedError(400, str(error)) from error
        except Exception as error:  # jobs leave what they like, and other pages go on
            log.exception("%s %s", request.method, path)
            raise RefusedError(500, f"This page can't be made: {error!r}") from error
        if isinstance(result, Done):
            self.visitors[visitor].append(result.said)
            return RedirectResponse(_root(path) + "/".join(["p", *place, quote(result.to)]), 303)
        if isinstance(result, Response):
            return result
        changed = isinstance(result, Confirm) and form is not None
        if isinstance(result, Confirm):
            result = Page("confirm.html", {"asked": result, "changed": changed})
        said, self.visitors[visitor][:] = self.visitors[visitor][:], []
        values = result.values | {"token": self._token(visitor), "said": said}
        page = self._render(result.template, path, visit.session, values)
        return HTMLResponse(page, 409 if changed else 200)

    def _at(self, project: str, location: str) -> Session:
        """The session of the project that an address names."""
        key, base = (project, location), self.session
        if key not in self._sessions:
            bucket = base.bucket if project == base.project else f"{project}-bucket"
            self._sessions[key] = Session(
                base.cloud, project, location, bucket, base.endpoint, base.credentials
            )
        return self._sessions[key]

    def _render(self, template: str, path: str, session: Session, values: dict) -> str:
        root = _root(path)
        base = f"{root}p/{session.project}/{session.location}/"

        def link(*parts: str, **query) -> str:
            given = {k: v for k, v in query.items() if v not in ("", None)}
            place = "/".join(quote(str(part), safe="") for part in parts)
            return base + place + (f"?{urlencode(given)}" if given else "")

        shared = {"root": root, "link": link, "session": session, "said": [], "token": ""}
        shared["section"] = path.split("/")[4] if path.count("/") > 3 else "problem"
        return self.templates.get_template(template).render(shared | values)

    def _fragments(self, path: str):
        """Renders parts of the page above `path`, for what moves."""
        page = path.rpartition("/")[0]
        return lambda template, session, values: self._render(template, page, session, values)

    def _problem(
        self, request: Request, path: str, status: int, text: str, lost: bool = False
    ) -> Response:
        values = {"text": text, "status": status, "lost": lost}
        known = path.startswith("/p/") and request.cookies.get(self._cookie) in self.visitors
        page = self._render("problem.html", path, self.session, values | {"inside": known})
        return HTMLResponse(page, status)


def _root(path: str) -> str:
    """The way from a page back to where the console begins, relative."""
    return "../" * (path.count("/") - 1) or "./"


def _again(to: str) -> Response:
    """Leads on by a page of our own: after a link on another site, cookies come only then."""
    name = to.replace("&", "&amp;").replace('"', "%22").replace("<", "%3C")
    return HTMLResponse(
        f'<!doctype html><html lang="en"><title>Console</title><meta http-equiv="refresh" '
        f'content="0;url={name}"><p><a href="{name}">Open the console</a></p></html>'
    )
