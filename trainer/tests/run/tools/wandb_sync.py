"""python wandb_sync.py RUN: what `wandb sync RUN` uploads, as JSON; it talks to a stand-in on this machine.

runs: the variables of every UpsertBucket mutation. history, summary: the lines of the file stream. exitcode: the run's.
"""

import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

found = {"runs": [], "history": [], "summary": {}, "exitcode": None}


class StandIn(BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/graphql":
            asked = json.loads(body)
            if asked.get("operationName") == "UpsertBucket":
                found["runs"].append(asked["variables"])
        elif self.path.endswith("/file_stream"):
            stream = json.loads(body)
            files = stream.get("files") or {}
            history = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
            for at, line in enumerate(history["content"], history["offset"]):
                assert at == len(found["history"]), (at, len(found["history"]))
                found["history"].append(json.loads(line))
            for line in files.get("wandb-summary.json", {"content": []})["content"]:
                found["summary"] = json.loads(line)
            found["exitcode"] = stream.get("exitcode", found["exitcode"])
        reply = b'{"data": {}}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
threading.Thread(target=server.serve_forever, daemon=True).start()
run = os.path.abspath(sys.argv[1])
beside = os.path.dirname(run)
environment = {
    **os.environ,
    "HOME": beside,
    "NO_PROXY": "127.0.0.1",
    "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
    "WANDB_API_KEY": "0" * 40,
    "WANDB_ERROR_REPORTING": "false",
}
sync = subprocess.run(
    [sys.executable, "-m", "wandb", "sync", run],
    cwd=beside,
    env=environment,
    capture_output=True,
    text=True,
    timeout=120,
)
print(sync.stdout, sync.stderr, file=sys.stderr)
found["synced"] = sync.returncode == 0 and "Finished syncing" in sync.stdout + sync.stderr
print(json.dumps(found))
