"""The HTTP edge: bytes in, JSON out. It knows the service by a protocol, and nothing of Ray.

- access_gate: The gate in front of the application: who may ask what, decided before a body is read
- app: The ASGI application: a shortcut for POST /classify, Starlette for the rest
- body: The body of a request: read within its limit, and understood by its content type
- call: `classify(text, **options)` in Python: by a handle of the service, or of a LocalClassifier
- caller: Who asks and how urgently, as far as headers say it
- classify_route: POST /classify: the hot path, plain ASGI
- docs: GET /docs: Swagger UI from the package, so that it works where no CDN is reached
- examples: Requests, answers and errors as the documentation shows them
- forms: Forms → ClassifyRequest
- held_bytes: How much memory the bodies of all requests may take before they are understood
- inputs: ClassifyRequest → what the service classifies
- json_body: JSON → ClassifyRequest
- openapi: GET /openapi.json: OpenAPI 3.1, made of the structs that decode requests
- responses: Answers in JSON: bodies, and the one way from an exception to a status
- schemas: The JSON that goes in and out
- security: Headers that every answer of ours carries
- serve_edge: Around Ray Serve's own part of a request, before it reads a header and after it says
  an error
- service: What the HTTP edge asks of whoever classifies
- status_routes: GET /health, /ready, /info and /: what the service says about itself

tokenizer.py and local.py import it. It imports access, pipeline, privacy, model, settings.
"""
