"""What protoc makes of open_inference.proto; a test makes it again. Nobody edits it.

- open_inference_pb2: The messages of the Open Inference Protocol

messages and edge import it, and only once somebody asks over gRPC: another module with the
protocol's messages, as tritonclient's, can't be in the same process.
"""
