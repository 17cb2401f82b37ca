"""The gRPC edge: version 2 of the Open Inference Protocol, and gRPC's own health protocol.

Serve's gRPC ingress carries it, where `grpc_options` of the YAML names `servicer:add_to_server`.
A question is read, classified and answered by what http/ has for the same protocol over HTTP.

- call: One RPC as the scope of an HTTP request, which is what gRPC sends: headers, who, how long
- edge: What each RPC answers, who may ask it, and the one way from an exception to a status
- generated: open_inference.proto, and what protoc makes of it
- messages: ModelInferRequest → InferRequest, and the tensors of an answer → ModelInferResponse
- methods: The methods that Serve calls on a Tokenizer replica, one for each RPC
- servicer: What Serve's gRPC servers are told to take, in replicas and proxies
- status: Our errors as gRPC's statuses

tokenizer.py imports methods, and Serve servicer. It imports http and what http imports.
"""
