"""Answers requests with recorded exchanges: the path names the case, whatever follows it.

A stream is sent in pieces that split lines and characters, everything else at once. What the answers mean is
left to those who ask.
"""

import http.server
import threading
from contextlib import contextmanager

# A prime, so that pieces end in all places.
PIECE_BYTES = 61


@contextmanager
def replayed(cases):
    """Serves cases by their names and yields the URL that the names are put behind."""
    server = Server(("127.0.0.1", 0), handler(cases))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Says nothing: who has read enough of an answer closes the connection."""


def handler(cases):
    class Replay(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            wire, name = self.path.split("/")[1:3]
            answer(self, cases[f"{wire}/{name}"]["response"])

        def log_message(self, *_):
            pass

    return Replay


def answer(to, response):
    body = response["body"].encode()
    to.send_response_only(response["status"])
    for name, value in response["headers"].items():
        if name.lower() not in ("content-length", "transfer-encoding", "connection"):
            to.send_header(name, value)
    if not response["streaming"]:
        to.send_header("content-length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)
        return
    to.send_header("transfer-encoding", "chunked")
    to.end_headers()
    for at in range(0, len(body), PIECE_BYTES):
        piece = body[at : at + PIECE_BYTES]
        to.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        to.wfile.flush()
    to.wfile.write(b"0\r\n\r\n")
