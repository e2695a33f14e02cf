"""Other ways to serve the same model: python rivals.py noop|fastapi|kserve PORT DIR.

`noop` is the limit of the stack itself (uvicorn, uvloop, httptools): it reads the request and
answers a constant. `pipe PORT TARGET` is the limit of standing before a server: it looks at nothing
and passes on what arrives.
"""

import sys


def noop(port: int, folder: str) -> None:
    import uvicorn

    answer = b'{"predictions":[110705.25]}'
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(app, port=port, log_level="warning", access_log=False, lifespan="off")


def pipe(port: int, target: str) -> None:
    import asyncio

    import uvloop

    class End(asyncio.Protocol):
        """One of the two connections; what it receives goes to the other."""

        def __init__(self, other: asyncio.Transport | None = None):
            self.other, self.early = other, b""

        def connection_made(self, transport):
            self.transport = transport
            if self.other is None:
                self.joined = asyncio.ensure_future(self.join())

        async def join(self):
            loop = asyncio.get_running_loop()
            end = lambda: End(self.transport)  # noqa: E731
            self.other, _ = await loop.create_connection(end, "127.0.0.1", int(target))
            self.other.write(self.early)

        def data_received(self, data):
            if self.other:
                self.other.write(data)
            else:
                self.early += data

        def connection_lost(self, error):
            if self.other:
                self.other.close()

    async def serve():
        server = await asyncio.get_running_loop().create_server(End, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


def _model(folder: str):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(folder)
    call = loaded.signatures["serving_default"]
    names = list(call.structured_input_signature[1])

    def predict(rows: list[dict]) -> list:
        columns = {n: tf.constant([row[n] for row in rows], tf.float32) for n in names}
        return next(iter(call(**columns).values())).numpy().tolist()

    predict.loaded = loaded
    return predict


def fastapi(port: int, folder: str) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    predict, app = _model(folder), FastAPI()

    class Request(BaseModel):
        instances: list[dict[str, float]]

    class Answer(BaseModel):
        predictions: list[float]

    @app.post("/v1/models/model:predict")
    def answer(request: Request) -> Answer:
        return Answer(predictions=predict(request.instances))

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


def kserve(port: int, folder: str) -> None:
    import kserve

    class Model(kserve.Model):
        def load(self) -> bool:
            self.call, self.ready = _model(folder), True
            return True

        async def predict(self, payload, headers=None, response_headers=None):
            return {"predictions": self.call(payload["instances"])}

    model = Model("model")
    model.load()
    server = kserve.ModelServer(http_port=port, enable_grpc=False, workers=1, access_log_format="")
    server.start([model])


if __name__ == "__main__":
    {"noop": noop, "pipe": pipe, "fastapi": fastapi, "kserve": kserve}[sys.argv[1]](
        int(sys.argv[2]), sys.argv[3]
    )
