"""Serves the built page on $PORT: `/` for people, `/healthz` for the rollout. Ends cleanly on SIGTERM."""

import http.server
import os
import pathlib
import signal
import string
import threading

HOST = os.environ.get("HOST", "127.0.0.1")
PORT = int(os.environ["PORT"])
built = (pathlib.Path(__file__).parent / "public" / "index.html").read_text()
page = string.Template(built).safe_substitute(
    release=os.environ.get("ONWARD_RELEASE", "none"), process=os.getpid(), port=PORT
)
PAGES = {"/": ("text/html; charset=utf-8", page.encode()), "/healthz": ("text/plain", b"ok\n")}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind, body = PAGES.get(self.path, ("text/plain", b"there is no such page\n"))
        self.send_response(200 if self.path in PAGES else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer((HOST, PORT), Handler)
# From another thread: shutdown() waits for the loop that this handler interrupts.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print(f"serving on {HOST}:{PORT}", flush=True)
server.serve_forever()
