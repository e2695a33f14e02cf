"""Other ways to serve the same model: python rivals.py noop|fastapi|kserve PORT DIR.

`noop` is the limit of the stack itself (uvicorn, uvloop, httptools): it reads the request and
answers a constant.
"""

import json
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
    {"noop": noop, "fastapi": fastapi, "kserve": kserve}[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
    print(json.dumps("ended"))
