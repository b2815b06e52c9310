"""The page that shows the OpenAPI description; everything on it comes from this server."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

from vermilion.server.errors import RequestError

HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Vermilion: HTTP interface</title><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="ui"></div><script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script>
</body></html>
"""
START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null});\n'
KINDS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


def add_docs(app: FastAPI, policy: str) -> None:
    """Serve the page at `/docs`.

    Args:
        app: the application.
        policy: its Content-Security-Policy.
    """

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(HTML, headers={"content-security-policy": policy})

    @app.get("/docs/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name == "start.js":
            return Response(START, media_type="text/javascript")
        if name not in KINDS:
            raise RequestError("there is no such file", status=404)
        data = files("fastapi_swagger").joinpath("resources", name).read_bytes()
        return Response(data, media_type=KINDS[name], headers={"cache-control": "max-age=86400"})
