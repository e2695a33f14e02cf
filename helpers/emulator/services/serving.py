"""Model server processes: started, asked over kept connections, started again when they died.

They end when the pipe to their standard input closes, so none outlives a killed local cloud.
"""

import asyncio
import collections
import contextlib
import functools
import http.client
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import httptools

from helpers.emulator.front import callers
from helpers.emulator.front.calls import ApiError, Cloud, project_number, refused
from helpers.emulator.servers import PROGRAMS
from helpers.emulator.services import builds, environments, logs, nursery, ports, registry

PREBUILT = re.compile(
    r"[a-z]+-docker\.pkg\.dev/vertex-ai/prediction/(tf2|sklearn)-[cg]pu\.[\w:.-]+"
)
SERVER = str(PROGRAMS / "model_server.py")
STATUS_LINE = re.compile(rb"HTTP/1\.1 (200|[45]\d\d) [ -~]*\r\n")
HEADER = re.compile(rb"([!#-'*+.0-9A-Z^-z|~-]+): ?([!-~](?:[ -~]*[!-~])?)")
REQUEST = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
FRAMING = {b"connection", b"transfer-encoding", b"upgrade"}
START_S = 300
DRAIN_S = 60
TYPE = "aiplatform.googleapis.com/Endpoint"
# Gives another program the same manners: it ends when standard input closes.
LIFELINE = 'exec 3<&0; "$@" 3<&- & p=$!; (cat <&3 >/dev/null; kill $p) & wait $p'


class Answer(NamedTuple):
    """What a model server said; of all that is frozen a tuple is made fastest."""

    status: int
    kind: str
    body: bytes


class ModelServer:
    """The process that serves one deployed model."""

    def __init__(
        self, cloud: Cloud, endpoint: str, deployed_id: str, model: dict, account: str = "",
        *, logged: bool = True,
    ):  # fmt: skip
        """Nothing is started yet.

        Args:
            endpoint: its name, or a batch prediction job's.
            model: a version's resource.
            account: the service account that the model runs as; "" is the default one.
            logged: whether what it prints goes to the logs.
        """
        self.name, self.account, self.logged = endpoint, account, logged
        self.home = cloud.folder / "served" / f"{endpoint.rsplit('/', 1)[-1]}-{deployed_id}"
        self.cloud, self.endpoint_id, self.id = cloud, endpoint.rsplit("/", 1)[-1], deployed_id
        self.folder, self.spec = registry.artifacts(cloud, model), model["containerSpec"]
        default = f"/v1/endpoints/{self.endpoint_id}/deployedModels/{deployed_id}"
        self.health = self.spec.get("healthRoute") or default
        self.route = self.spec.get("predictRoute") or f"{default}:predict"
        self.variables = {
            "AIP_MODE": "PREDICTION", "AIP_STORAGE_URI": str(self.folder),
            "AIP_HTTP_PORT": str(self.spec["ports"][0]["containerPort"]),
            "AIP_HEALTH_ROUTE": self.health, "AIP_PREDICT_ROUTE": self.route,
            "AIP_PROJECT_NUMBER": project_number(endpoint.split("/")[1]),
            "AIP_ENDPOINT_ID": self.endpoint_id, "AIP_DEPLOYED_MODEL_ID": deployed_id,
        }  # fmt: skip
        for variable in self.spec.get("env", []):
            self.variables[variable["name"]] = self._expand(variable.get("value", ""))
        self.under_way = 0  # requests; changed by the event loop alone
        self.process: subprocess.Popen | nursery.Forked | None = None
        self.port, self.stopped = 0, False
        self._tail: collections.deque[str] = collections.deque(maxlen=20)
        self._connections: list[Connection] = []
        self._started: Future | None = None
        self._lock = threading.Lock()

    # --- the process

    def ready(self) -> Future:
        """Done once it answers; begins to start it when it does not run."""
        with self._lock:
            started = self._started
            if self.stopped:
                raise ConnectionAbortedError(f"deployed model {self.id} was undeployed")
            if started is None or (started.done() and (started.exception() or self._gone())):
                started = self._started = Future()
                threading.Thread(target=self._start_for, args=(started,), daemon=True).start()
            return started

    def wait_gone(self) -> None:
        """Give a process whose connection broke a moment to be seen as ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process:
                self.process.wait(timeout=2)

    def stop(self) -> None:
        """Let requests under way finish, then end the process."""
        self.stopped = True
        deadline = time.monotonic() + DRAIN_S
        while self.under_way and time.monotonic() < deadline and not self._gone():
            time.sleep(0.02)
        self.end()

    def end(self) -> None:
        process = self.process
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        callers.revoke(self.cloud, self.name, key=f"/{self.id}")
        shutil.rmtree(self.home, ignore_errors=True)

    def _gone(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def _start_for(self, started: Future) -> None:
        try:
            self._start()
            started.set_result(None)
        except ApiError as error:
            started.set_exception(error)
        except Exception as error:
            started.set_exception(ApiError(500, f"The model server did not start: {error!r}"))

    def _start(self) -> None:
        for attempt in (1, 2):
            self.end()
            (self.port,), self._connections = ports.free(), []
            self._tail.clear()
            prebuilt = PREBUILT.fullmatch(self.spec["imageUri"])
            kind = prebuilt[1] if prebuilt else "tf2"
            own = environments.make(self.cloud, self.home, environments.SERVING[kind])
            self.process = self._begin(own)
            pid = self.process.pid
            callers.issue(
                self.cloud, self.name, self.account, lambda pid=pid: [pid], key=f"/{self.id}"
            )
            reader = threading.Thread(target=self._read_log, args=(self.process,), daemon=True)
            reader.start()
            limit = self.spec.get("deploymentTimeout", f"{START_S}s")
            deadline = time.monotonic() + float(limit.removesuffix("s"))
            while not self.stopped and time.monotonic() < deadline:
                if self._healthy():
                    return
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(timeout=0.05)
                    break
            died = self.process.poll() is not None
            self.end()
            reader.join(timeout=5)
            if not (died and attempt == 1 and "in use" in "".join(self._tail)):
                break
        why = "exited unexpectedly" if died else f"did not answer on {self.health} in time"
        raise refused(f"Model server {why}. Its last lines:\n" + "\n".join(self._tail))

    def _begin(self, own: environments.Environment) -> subprocess.Popen | nursery.Forked:
        """A fork where that makes no difference, else a process from the beginning."""
        command, work = self._command(own.python), self.home / "work"
        environment = own.variables | self.variables | callers.variables(self.cloud)
        environment |= {"AIP_HTTP_PORT": str(self.port), "TF_CPP_MIN_LOG_LEVEL": "2"}
        ours = nursery.POSSIBLE and command[1:2] == [SERVER]
        if ours and not nursery.late(environment):
            sandbox = own.sandbox(read=[self.folder, nursery.view(self.cloud)])
            program = {"command": command, "env": environment, "cwd": work, "sandbox": sandbox}
            forked = nursery.serve(self.cloud, program)
            if forked:
                return forked
        return subprocess.Popen(
            own.hidden(command, read=[self.folder]), env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, cwd=work,
        )  # fmt: skip

    def _read_log(self, process: subprocess.Popen | nursery.Forked) -> None:
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._tail.append(line)
            if self.logged:
                logs.write(self.cloud, TYPE, self.name, [line], task=self.id)
        process.stdout.close()

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", self.health)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _command(self, python: str) -> list[str]:
        """What the container would run, on this machine's files and port.

        Args:
            python: the one that runs our servers.
        Raises:
            ApiError: an image that can't be emulated, or one Google's health checks won't reach.
        """
        uri, spec = self.spec["imageUri"], self.spec
        ours = [python, SERVER]
        prebuilt = PREBUILT.fullmatch(uri)
        if prebuilt and prebuilt[1] == "sklearn":  # takes all from the environment
            return [*ours[:-1], str(PROGRAMS / "sklearn_server.py")]
        if prebuilt:
            flags = {"model_base_path": self.folder, "rest_api_port": self.port}
            return [*ours, "--prebuilt", *(f"--{name}={value}" for name, value in flags.items())]
        image = builds.image(self.cloud, uri)
        if image is None or not image.base.startswith("tensorflow/serving"):
            what = f"is built on {image.base}" if image else "was not built here"
            raise refused(
                f"Image {uri} {what}. The local cloud serves images built on tensorflow/serving "
                "and Google's prebuilt tf2 and sklearn prediction images."
            )
        words = [self._expand(w) for w in [*spec.get("command", []), *spec.get("args", [])]]
        if not spec.get("command"):  # the image's own entry point
            values = {"MODEL_NAME": "model", "MODEL_BASE_PATH": "/models"} | image.env
            base = "{MODEL_BASE_PATH}/{MODEL_NAME}".format(**values | self.variables)
            name = self.variables.get("MODEL_NAME", values["MODEL_NAME"])
            words = ["tensorflow_model_server", "--port=8500", "--rest_api_port=8501",
                     f"--model_name={name}", f"--model_base_path={base}", *words]  # fmt: skip
        if Path(words[0]).name != "tensorflow_model_server":
            raise refused(
                f"Command {words[0]!r} is not emulated; expected tensorflow_model_server."
            )
        flags = dict(w.removeprefix("--").partition("=")[::2] for w in words[1:])
        expected = self.variables["AIP_HTTP_PORT"]
        if flags.get("rest_api_port") != expected:
            raise refused(
                f"The server listens on --rest_api_port={flags.get('rest_api_port')}, but requests "
                f"and health checks go to the container's port {expected}."
            )
        flags |= {"rest_api_port": str(self.port), "port": "0"}
        binary = shutil.which("tensorflow_model_server")
        head = ["sh", "-c", LIFELINE, "sh", binary] if binary else ours
        return head + [f"--{name}={value}" for name, value in flags.items()]

    def _expand(self, text: str) -> str:
        """Kubernetes' $(NAME); $$(NAME) is kept as $(NAME), an unknown name as it is."""
        return re.sub(
            r"\$(\$\(\w+\))|\$\((\w+)\)",
            lambda m: m[1] or self.variables.get(m[2], m[0]),
            text,
        )

    # --- the way to it

    def request(self, body: bytes, kind: str) -> bytes:
        """What a model server is sent."""
        return REQUEST % (self.route.encode(), kind.encode(), len(body), body)

    def kept(self) -> "Connection | None":
        """A free connection that is open, if there is one to a server that takes requests."""
        while self._connections and not self.stopped:
            connection = self._connections.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    async def post(self, body: bytes, kind: str) -> Answer:
        """Raises: OSError, EOFError when the process is gone."""
        request = self.request(body, kind)
        loop = asyncio.get_running_loop()
        while True:
            connection = kept = self.kept()
            if connection is None:
                made = functools.partial(Connection, self._connections)
                connection = (await loop.create_connection(made, "127.0.0.1", self.port))[1]
            answer = loop.create_future()
            connection.ask(request, functools.partial(_settle, answer))
            try:
                said = await answer
            except BaseException:
                connection.close()
                raise
            if isinstance(said, Answer):
                return said
            if kept is None:  # the server may close a connection it was kept on
                raise said


class Connection(asyncio.Protocol):
    """A kept connection to a model server; one request at a time."""

    done: Callable | None = None  # while a request is under way
    parser: httptools.HttpResponseParser | None = None  # of an answer whose head is not plain
    missing = 0  # bytes of a plain answer

    def __init__(self, pool: list["Connection"]):
        """`pool` has those that are free."""
        self.pool = pool

    def ask(self, request: bytes, done: Callable[["Answer | EOFError"], None]) -> None:
        """Call `done` with the answer when it is whole, EOFError when the connection ends before;
        it must not raise."""
        self.done, self.kind, self.parts, self.status = done, "", [], 0
        self.parser, self.missing = None, 0
        if not self.transport.is_closing():
            self.transport.write(request)
        if self.transport.is_closing():
            self.connection_lost(None)

    def close(self) -> None:
        """Nobody waits for the answer any more."""
        self.done = None
        self.transport.close()

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.parser is None and not self.missing:  # the first of an answer
            end = data.find(b"\r\n\r\n") + 4
            plain = self.done and _read_head(data[:end])
            if plain:
                self.status, self.kind, self.missing = plain
                data = data[end:]
            else:
                self.parser = httptools.HttpResponseParser(self)
        if self.parser:
            self.parser.feed_data(data)
        elif data:
            self.parts.append(data[: self.missing])
            if len(data) > self.missing:  # what nobody asked for
                self.transport.close()
            self.missing = max(0, self.missing - len(data))
        if self.done and self.status and self.missing == 0:
            done, self.done = self.done, None
            self.pool.append(self)
            done(Answer(self.status, self.kind, b"".join(self.parts)))

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.kind = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        self.status = status if status >= 200 else 0  # before that the answer is yet to come

    def connection_lost(self, error: Exception | None) -> None:
        done, self.done = self.done, None
        if done:
            done(EOFError(f"the connection ended ({error})"))


@functools.lru_cache(1000)
def _read_head(head: bytes) -> tuple[int, str, int] | None:
    """Status, kind and size of an answer whose head is a plain one; None: it takes a parser."""
    first = STATUS_LINE.match(head)
    headers = plain_headers(head[first.end() :]) if first else {}
    size = headers.get(b"content-length", b"")
    if headers.keys() & FRAMING or not size.isdigit() or not int(size):
        return None
    return int(first[1]), headers.get(b"content-type", b"").decode(), int(size)


def plain_headers(lines: bytes) -> dict[bytes, bytes]:
    """The headers of a head's end, by names in lower case; none at all where one comes twice or is
    written in a way that takes a parser."""
    found = [HEADER.fullmatch(line) for line in lines.removesuffix(b"\r\n\r\n").split(b"\r\n")]
    headers = {} if None in found else {match[1].lower(): match[2] for match in found}
    return headers if len(headers) == len(found) else {}


def _settle(answer: asyncio.Future, said: Answer | EOFError) -> None:
    if not answer.done():  # who waited has been cancelled
        answer.set_result(said)
