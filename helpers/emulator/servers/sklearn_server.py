"""Google's prebuilt scikit-learn prediction container, as a process of its own.

    AIP_STORAGE_URI=DIR AIP_HTTP_PORT=8080 AIP_HEALTH_ROUTE=/h AIP_PREDICT_ROUTE=/p \\
        python -P sklearn_server.py

DIR holds model.joblib or model.pkl; `{"instances": [[…], …]}` is answered with what its predict
gives: `{"predictions": […]}`. It imports nothing of this package and ends when its standard input
closes.
"""

import http.server
import os
import socketserver
import sys
import threading
from pathlib import Path

import orjson

FILES = ("model.joblib", "model.pkl")


class Predictions(http.server.BaseHTTPRequestHandler):
    """One connection; `server.model` is the loaded model."""

    protocol_version, wbufsize = "HTTP/1.1", -1  # kept connections; head and body in one packet

    def do_GET(self) -> None:
        fine = self.path == os.environ["AIP_HEALTH_ROUTE"]
        self._answer(200 if fine else 404, {} if fine else {"error": f"Not found: {self.path}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != os.environ["AIP_PREDICT_ROUTE"]:
            self._answer(404, {"error": f"Not found: {self.path}"})
            return
        try:
            answers = self.server.model.predict(orjson.loads(body)["instances"])
            self._answer(200, {"predictions": answers.tolist()})
        except Exception as error:  # whatever the model says of these rows
            said = f"Prediction failed: Exception during sklearn prediction: {error!r}"
            self._answer(400, {"error": said[:2000]})

    def _answer(self, status: int, content: dict) -> None:
        body = orjson.dumps(content)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Requests are not logged."""


class Server(socketserver.ThreadingTCPServer):
    """A thread a connection."""

    allow_reuse_address = daemon_threads = True
    request_queue_size, model = 128, None


def main() -> None:
    place = "127.0.0.1", int(os.environ["AIP_HTTP_PORT"])
    server = Server(place, Predictions, bind_and_activate=False)
    server.server_bind()  # a port in use is known before the long imports
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    folder = Path(os.environ["AIP_STORAGE_URI"])
    found = [folder / name for name in FILES if (folder / name).is_file()]
    try:
        if not found:
            raise FileNotFoundError(f"None of {', '.join(FILES)} is in the artifact folder")
        import joblib

        server.model = joblib.load(found[0])
    except Exception as error:
        sys.exit(f"The model can't be served: {type(error).__name__}: {error}")
    server.server_activate()
    print(f"Serving {found[0].name} ({type(server.model).__name__})", flush=True)
    server.serve_forever()


def _leave_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
