"""ServerInfoService: what server this is and how to reach it; needs no database."""

from __future__ import annotations

import time
from typing import Any

from runstream.v1 import server_pb2, server_pb2_grpc
from runstream_server import __version__
from runstream_server import validation as v
from runstream_server.artifacts.locations import destination
from runstream_server.context import Context


class ServerInfoService(server_pb2_grpc.ServerInfoServiceServicer):
    """Answers from the settings."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def GetServerInfo(
        self, request: server_pb2.GetServerInfoRequest, context: Any
    ) -> server_pb2.GetServerInfoResponse:
        """Return version, gRPC address and limits."""
        settings, port = self._context.settings, self._context.grpc_port
        return server_pb2.GetServerInfoResponse(
            version=__version__,
            grpc_address=f":{port}" if port else "",
            server_time=time.time_ns() // 1_000_000,
            store=self._context.db.dialect,
            artifact_store="local" if destination(settings).scheme == "file" else "s3",
            serve_artifacts=settings.serve_artifacts,
            limits=server_pb2.ServerLimits(
                max_message_bytes=settings.max_message_bytes,
                max_body_bytes=settings.max_body_bytes,
                max_batch_points=settings.max_batch_points,
                max_param_length=v.MAX_PARAM_VALUE,
                max_tag_length=v.MAX_TAG_VALUE,
                max_key_length=v.MAX_KEY,
            ),
        )
