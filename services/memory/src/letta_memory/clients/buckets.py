"""A bucket of storage that speaks S3."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from letta_common.errors import LostObject, ServiceUnavailable

_THREADS = 16
_DELETED_AT_ONCE = 1_000  # what S3 takes


@dataclass(frozen=True, slots=True)
class BucketOptions:
    """Where a bucket is, and who we are there."""

    name: str
    endpoint: str = ""
    """Address of the storage; empty: Amazon's, of the region."""
    region: str = "us-east-1"
    access_key: str = ""
    """Empty: what the environment of the process gives, as the vendor's tools find it."""
    secret_key: str = ""
    timeout_seconds: float = 30.0


class S3Bucket:
    """A bucket. The vendor's library blocks, so each call has a thread."""

    def __init__(self, options: BucketOptions) -> None:
        """Connect to nothing yet. Raises ModuleNotFoundError without the extra `s3`."""
        self._name = options.name
        # Only where there is a bucket: the library is an extra, and takes long to load.
        session, config, errors = (_library(part) for part in ("session", "config", "exceptions"))
        self._refused: type[Any] = errors.ClientError
        self._failed: tuple[type[Any], ...] = (errors.BotoCoreError, OSError)
        self._client: Any = session.Session().create_client(
            "s3",
            region_name=options.region,
            endpoint_url=options.endpoint or None,
            aws_access_key_id=options.access_key or None,
            aws_secret_access_key=options.secret_key or None,
            config=config.Config(
                connect_timeout=5,
                read_timeout=options.timeout_seconds,
                retries={"total_max_attempts": 3},
                max_pool_connections=_THREADS,
                # Names of buckets are part of the path: other storages have no names of hosts for them.
                s3={"addressing_style": "path" if options.endpoint else "auto"},
            ),
        )
        self._slots = asyncio.Semaphore(_THREADS)

    async def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        await self._call(self._client.put_object, Key=key, Body=data)

    async def get(self, key: str) -> bytes:
        """Return the bytes of an object."""
        return bytes(await self._call(self._read, Key=key))

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are no failure."""
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            objects = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
            answer = await self._call(self._client.delete_objects, Delete={"Objects": objects, "Quiet": True})
            if answer.get("Errors"):
                raise ServiceUnavailable("the bucket did not remove some objects; they are removed later")

    def _read(self, **which: Any) -> bytes:
        body: bytes = self._client.get_object(**which)["Body"].read()
        return body

    async def _call(self, method: Callable[..., Any], **values: Any) -> Any:
        async with self._slots:
            try:
                return await asyncio.to_thread(method, Bucket=self._name, **values)
            except self._refused as error:
                if error.response.get("Error", {}).get("Code") == "NoSuchKey":
                    raise LostObject("the bytes of this file are not there any more; upload it again") from error
                raise _away() from error
            except self._failed as error:
                raise _away() from error


def _library(part: str) -> Any:
    return importlib.import_module(f"botocore.{part}")


def _away() -> ServiceUnavailable:
    return ServiceUnavailable("the storage of files does not answer; try again")
