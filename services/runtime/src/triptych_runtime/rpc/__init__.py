"""RuntimeService: one module an RPC, named by it; `service` binds them to gRPC."""
