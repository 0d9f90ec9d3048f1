# %% [markdown]
# # A web service
# Photographs come in as bytes, JSON and PNG go out as bytes, and several threads may explain at once with one model.
# The server here is Python's own, to need no package; with FastAPI or Flask the function stays the same.

# %%
import io
import json

import camplug

explainer = camplug.GradCAM(camplug.load_model("demo"))


def explain(data: bytes) -> tuple[dict, bytes]:
    """Return classes, probabilities and boxes, and the picture of the predicted class."""
    result = explainer.explain(data)
    picture = io.BytesIO()
    result.overlay().save(picture, "png")
    return result.to_dict(), picture.getvalue()


# %% [markdown]
# What camplug cannot read is a `camplug.InputError` with one sentence, which is what the client should see.

# %%
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """POST /json or /png with the bytes of a photograph."""

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            facts, picture = explain(data)
            kind, body = (
                ("image/png", picture) if self.path == "/png" else ("application/json", json.dumps(facts).encode())
            )
            self.reply(200, kind, body)
        except camplug.InputError as error:
            self.reply(400, "text/plain", str(error).encode())

    def reply(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.timeout = 10
threading.Thread(target=server.serve_forever, daemon=True).start()

# %% [markdown]
# Three clients: one wants numbers, one a picture, and one sends a text.

# %%
from urllib.error import HTTPError
from urllib.request import urlopen

address = f"http://127.0.0.1:{server.server_port}"
buffer = io.BytesIO()
camplug.sample_photo().resize((225, 150)).save(buffer, "jpeg")
photo = buffer.getvalue()

facts = json.load(urlopen(f"{address}/json", photo, timeout=60))
for row in facts["explained"]:
    print(row["name"], f"{row['probability']:.1%}", row["boxes"])

try:
    urlopen(f"{address}/json", b"no photograph", timeout=60)
except HTTPError as error:
    print(error.code, error.read().decode())

# %%
from PIL import Image

picture = Image.open(urlopen(f"{address}/png", photo, timeout=60))
server.shutdown()
server.server_close()
picture.copy()
