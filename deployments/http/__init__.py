"""The HTTP edge: bytes in, JSON out. It knows the service by a protocol, and nothing of Ray.

- access_gate: The gate in front of the application: who may ask what, decided before a body is read
- app: The ASGI application: a look-up for the dialects' paths, Starlette for the rest
- body: The body of a request: read within its limits, and parsed beside the loop where it is large
- call: `classify(text, **options)` in Python: by a handle of the service, or of a LocalClassifier
- classify_route: POST to a dialect's paths: the hot path, plain ASGI
- dialects: Ways of asking over HTTP: whose JSON it is, and at which paths
- docs: Pages from the package, so that they work where no CDN is reached: Swagger UI, the
  playground
- examples: Requests, answers and errors as the documentation shows them
- explanation: What an explanation looks like in JSON
- fields: Fields of requests and answers: as JSON Schemas have them, and as error messages tell them
- forms: Forms → ClassifyRequest
- inputs: ClassifyRequest → what the service classifies, for whom
- json_body: JSON → ClassifyRequest
- lines: A body that is lines of JSON, read as it arrives; and what one line asks
- media_types: The content types that a request's body may have
- openapi: GET /openapi.json: OpenAPI 3.1, made of the structs that decode requests
- request_log: Which requests got an error, and a sample of those that got none: a line each, never
  a text
- responses: Answers in JSON: bodies, and the one way from an exception to a status
- routes: The one table of paths: what answers there, what a key needs for it, how OpenAPI shows it
- schemas: The JSON that goes in and out
- serve_edge: Around Ray Serve's own part of a request, before it reads a header and after it says
  an error
- service: What the HTTP edge asks of whoever classifies
- state: What `GET /state` looks like in JSON
- status_routes: GET /health, /ready, /info, /state and /: what the service says about itself
- stream_route: POST /classify/stream: a line of JSON in, a line of JSON out, for as long as the
  sender has some

tokenizer.py and local.py import it. It imports access, pipeline, privacy, model, settings.
"""
