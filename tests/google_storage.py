"""A Google Cloud Storage of this machine: python -m tests.google_storage PORT BUCKET

The emulator of PyPI puts an object whatever is there. Here it refuses, as the real one
does, to put one that is asked for only where there is none (``ifGenerationMatch=0``).
"""

import sys
import threading
from http import HTTPStatus
from typing import Any

from gcp_storage_emulator import exceptions, server
from gcp_storage_emulator.handlers import objects

_put = objects._multipart_upload


def _put_if_asked(request: Any, response: Any, storage: Any) -> Any:
    if request.query.get("ifGenerationMatch") == ["0"]:
        bucket, name = request.params["bucket_name"], request.data["meta"]["name"]
        try:
            storage.get_file_obj(bucket, name)
        except exceptions.NotFound:
            return _put(request, response, storage)
        response.status = HTTPStatus.PRECONDITION_FAILED
        return None
    return _put(request, response, storage)


if __name__ == "__main__":
    objects._multipart_upload = _put_if_asked
    port, bucket = sys.argv[1:]
    made = server.create_server(
        "127.0.0.1", int(port), in_memory=True, default_bucket=bucket
    )
    made.start()
    threading.Event().wait()
