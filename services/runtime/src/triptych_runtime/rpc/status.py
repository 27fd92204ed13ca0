"""Status: conditions, runtime handlers and features."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.node import Node
from triptych_runtime.rpc.verbose import status_info


def status(node: Node, request: api_pb2.StatusRequest) -> api_pb2.StatusResponse:
    """RuntimeReady and NetworkReady with their reasons, and what each handler can do."""
    response = api_pb2.StatusResponse(runtime_handlers=_handlers(node))
    _runtime_condition(node, response)
    _network_condition(node, response)
    response.features.supplemental_groups_policy = True
    response.features.user_namespaces_host_network = any(
        h.features.user_namespaces for h in node.handlers.all() if not h.problem
    )
    response.features.mount_options = True
    if request.verbose:
        response.info.update(status_info(node))
    return response


def _runtime_condition(node: Node, response: api_pb2.StatusResponse) -> None:
    default = node.handlers.find("")
    if default is not None:
        problem = default.problem
    else:
        problem = "not configured" if node.handlers.all() else "the OCI runtimes are still being looked at"
    response.status.conditions.add(
        type="RuntimeReady",
        status=not problem,
        reason="OCIRuntimeNotReady" if problem else "",
        message=f"default runtime handler {node.handlers.default!r}: {problem}" if problem else "",
    )


def _network_condition(node: Node, response: api_pb2.StatusResponse) -> None:
    network = node.network.status()
    response.status.conditions.add(
        type="NetworkReady", status=network.ready, reason=network.reason, message=network.message
    )


def _handlers(node: Node) -> list[api_pb2.RuntimeHandler]:
    """Every usable handler; the default one a second time under the empty name, as the kubelet expects."""
    messages: list[api_pb2.RuntimeHandler] = []
    for handler in node.handlers.all():
        if handler.problem:
            continue
        features = api_pb2.RuntimeHandlerFeatures(
            recursive_read_only_mounts=handler.features.recursive_read_only,
            user_namespaces=handler.features.user_namespaces,
        )
        if handler.name == node.handlers.default:
            messages.insert(0, api_pb2.RuntimeHandler(name="", features=features))
        messages.append(api_pb2.RuntimeHandler(name=handler.name, features=features))
    return messages
