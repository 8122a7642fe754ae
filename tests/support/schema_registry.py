"""A schema registry over HTTP: those parts of Confluent's documented API that serializers and readers use.

It keeps what confluent-kafka's own client registers, and gives it back to that client. Protobuf schemas are kept as
that client sends them, serialized, and given back so whatever format is asked for.
"""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

CONTENT = "application/vnd.schemaregistry.v1+json"


@dataclass
class SchemaRegistry:
    """Serve schemas on a port of its own. user: name:password that is asked for. answers: False, and it says 503."""

    user: str = ""
    answers: bool = True
    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, list[int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: dict[str, Any] | None) -> None:
                wanted = f"Basic {base64.b64encode(registry.user.encode()).decode()}"
                if registry.user and self.headers.get("Authorization") != wanted:
                    status, found = 401, {"error_code": 401, "message": "Unauthorized"}
                elif not registry.answers:
                    status, found = 503, {"error_code": 50303, "message": "no leader"}
                else:
                    status, found = registry.answer([unquote(p) for p in urlsplit(self.path).path.split("/")[1:]], body)
                registry.asked.append(f"{self.command} {self.path} {status}")
                content = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", CONTENT)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: list[str], body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        """Answer a request: (status, JSON)."""
        status, found = 404, {"error_code": 40403, "message": "not found"}
        match path:
            case ["schemas", "ids", number] if int(number) in self.schemas:
                status, found = 200, self.schemas[int(number)]
            case ["subjects", subject, "versions"] if body is not None:
                self.add(subject, body)
                status, found = 200, self._registered(subject, len(self.versions[subject]))
            case ["subjects", subject] if body is not None:
                for at, number in enumerate(self.versions.get(subject, ()), 1):
                    if self.schemas[number]["schema"] == body["schema"]:
                        status, found = 200, self._registered(subject, at)
            case ["subjects", subject, "versions", version] if subject in self.versions:
                at = len(self.versions[subject]) if version == "latest" else int(version)
                status, found = 200, self._registered(subject, at)
        return status, found

    def add(self, subject: str, schema: dict[str, Any]) -> int:
        """Register a schema, `{"schema": text, "schemaType": ..., "references": [...]}`; returns its id."""
        kept = {name: schema[name] for name in ("schema", "schemaType", "references") if schema.get(name)}
        number = next((n for n, each in self.schemas.items() if each == kept), len(self.schemas) + 1)
        self.schemas[number] = kept
        versions = self.versions.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def _registered(self, subject: str, version: int) -> dict[str, Any]:
        number = self.versions[subject][version - 1]
        return {"subject": subject, "version": version, "id": number, **self.schemas[number]}
