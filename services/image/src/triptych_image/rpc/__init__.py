"""The RPCs of the image daemon, one module each; `services` binds them to gRPC."""
