"""Headless Chromium by its DevTools protocol over a pipe: opens a file, and tells what went wrong with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One browser with one page; `errors` and `requests` fill while it is used."""

    def __init__(self, profile, size=(1280, 900), scenes=False):
        """With `scenes` it draws in three dimensions, in software."""
        self.errors, self.requests = [], []
        self._number, self._buffer, self._answers, self._events = 0, b"", {}, set()
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()

        def descriptors():  # the browser reads commands from 3 and writes answers to 4
            read, write = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(read, 3)
            os.dup2(write, 4)

        words = [
            "--headless=new",
            "--no-sandbox",
            *(("--use-angle=swiftshader", "--enable-unsafe-swiftshader") if scenes else ("--disable-gpu",)),
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]
        words += [f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            [CHROMIUM, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=descriptors,
            pass_fds=(3, 4, theirs_in, theirs_out),
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        session, self._session = self._session, None
        self.call("Browser.close")
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        del session

    def call(self, method, **parameters):
        """A command's result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        self._read_until(lambda: self._number in self._answers, method)
        answer = self._answers.pop(self._number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, page):
        """Load a file or an address, to the last of its pictures and videos."""
        self._events.discard("Page.loadEventFired")
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self._read_until(lambda: "Page.loadEventFired" in self._events, "load")

    def evaluate(self, expression):
        """Value of a JavaScript expression, awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def _read_until(self, done, what):
        while not done():
            data = os.read(self._in, 1 << 16)
            assert data, f"the browser ended before it answered {what}"
            *messages, self._buffer = (self._buffer + data).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message):
        if "id" in message:
            self._answers[message["id"]] = message
            return
        name, parameters = message["method"], message.get("params", {})
        self._events.add(name)
        if name == "Runtime.exceptionThrown":
            self.errors.append(parameters["exceptionDetails"]["text"])
        elif name == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.errors.append(parameters["entry"]["text"])
        elif name == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.errors.append(str(parameters["args"]))
        elif name == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
