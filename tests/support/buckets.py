"""A real storage that speaks S3, SeaweedFS, with an empty bucket."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from letta_memory.clients.buckets import BucketOptions
from tests.servers import free_port

BUCKET, KEY, SECRET = "files", "letta", "a-long-secret-of-tests"
_PATIENCE = 300.0


@dataclass
class Storage:
    """A running storage."""

    port: int
    options: BucketOptions
    client: Any = field(repr=False)

    def objects(self) -> dict[str, int]:
        """Return the size of each object by its key."""
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {each["Key"]: each["Size"] for each in found}

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead memory to it."""
        return {
            "LETTA_MEMORY_FILE_BUCKET": BUCKET,
            "LETTA_MEMORY_FILE_BUCKET_ENDPOINT": self.options.endpoint,
            "LETTA_MEMORY_FILE_BUCKET_ACCESS_KEY": KEY,
            "LETTA_MEMORY_FILE_BUCKET_SECRET_KEY": SECRET,
        }


@contextmanager
def storage() -> Iterator[Storage]:
    """Run a storage with an empty bucket."""
    first = free_port()
    names = ("master", "volume", "filer", "s3")
    ports = [f"-{name}.port={first + at}" for at, name in enumerate(names)]
    ports += [f"-{name}.port.grpc={first + 4 + at}" for at, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        key = {"accessKey": KEY, "secretKey": SECRET}
        who = {"name": KEY, "credentials": [key], "actions": ["Admin", "Read", "Write", "List"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [who]}))
        (folder / "data").mkdir()
        command = [str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder / 'data'}", "-s3", *ports]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={folder / 's3.json'}"]
        command += [
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-metricsPort={first + 8}",
            "-volume.max=5",
            "-master.volumeSizeLimitMB=64",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield _ready(process, first + 3)
        finally:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], port: int) -> Storage:
    options = BucketOptions(BUCKET, f"http://127.0.0.1:{port}", access_key=KEY, secret_key=SECRET, timeout_seconds=10)
    client: Any = botocore.session.Session().create_client(
        "s3",
        region_name=options.region,
        endpoint_url=options.endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    deadline = time.monotonic() + _PATIENCE
    while True:
        assert process.poll() is None, "the storage has ended"
        assert time.monotonic() < deadline, "the storage did not start"
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="first", Body=b"x")
            client.delete_object(Bucket=BUCKET, Key="first")
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
        else:
            return Storage(port, options, client)
