"""A stand-in for the Hugging Face Hub on this machine: what its client asks for to publish and fetch, and no more."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0" * 39 + "1"


class Handler(BaseHTTPRequestHandler):
    """Repositories are dictionaries of files."""

    repos: dict[str, dict[str, bytes]]

    def do_POST(self):
        """Make a repository, say how files are to come, take them."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        words = urlsplit(self.path).path.strip("/").split("/")
        if self.headers.get("Authorization") != "Bearer secret":
            return self.answer({"error": "Invalid username or password."}, 401)
        if words == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'robots'}/{asked['name']}"
            self.repos.setdefault(name, {})
            return self.answer({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        if words == ["api", "validate-yaml"]:
            return self.answer({"errors": [], "warnings": []})
        name = "/".join(words[2:4])
        if words[4] == "preupload":
            files = json.loads(body)["files"]
            plan = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            return self.answer({"files": plan})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.repos[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        address = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
        return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": address})

    def do_HEAD(self):
        """As GET, without the content."""
        self.do_GET()

    def do_GET(self):
        """List a repository, or give a file."""
        words = [unquote(word) for word in urlsplit(self.path).path.strip("/").split("/")]
        at = 2 if words[0] == "api" else 0
        files = self.repos.get("/".join(words[at : at + 2]))
        if files is None:
            return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if words[0] == "api" and words[4] == "tree":
            rows = [{"type": "file", "path": p, "size": len(c), "oid": sha(c)} for p, c in files.items()]
            return self.answer(rows)
        if words[0] == "api":
            return self.answer({"id": "/".join(words[2:4]), "sha": COMMIT, "siblings": []})
        content = files["/".join(words[4:])]
        return self.answer(content, 200, {"ETag": f'"{sha(content)}"', "X-Repo-Commit": COMMIT})

    def answer(self, content, status=200, headers=None):
        """JSON, or bytes as they are."""
        blob = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(blob)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(blob)

    def log_message(self, *words):
        """Say nothing."""


def sha(content):
    """What git calls a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub():
    """Its address, and its repositories."""
    repos = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"repos": repos}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", repos
    finally:
        server.shutdown()
        server.server_close()
