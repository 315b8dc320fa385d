"""Settings of the memory service."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from letta_common.process.settings import Settings


class MemorySettings(Settings):
    """Settings of memory: LETTA_MEMORY_X wins over LETTA_X."""

    service: ClassVar[str] = "memory"

    bind: str = Field(default="127.0.0.1:50052", description="Address and port of the gRPC server.")
    pool_size: int = Field(default=10, ge=1, description="Most database connections of this process.")
    embed_messages: bool = Field(
        default=False, description="Embed messages in the background, so that search finds meanings."
    )
    embedding_model: str = Field(
        default="", description="Handle of the embedder, `provider/name`; empty: the default one."
    )
    embedding_batch: int = Field(default=64, ge=1, le=512, description="Most texts embedded with one call.")
    embedding_pause_seconds: float = Field(default=2.0, gt=0, description="Wait between two looks for texts to embed.")
    file_bytes: int = Field(default=50 << 20, ge=1, description="Largest file accepted.")
    organization_file_bytes: int = Field(
        default=0, ge=0, description="Most bytes of files that an organization may store; 0 is any number."
    )
    index_pause_seconds: float = Field(
        default=1.0, gt=0, description="Wait between two looks for messages that search does not keep yet."
    )
    review_pause_seconds: float = Field(
        default=5.0, gt=0, description="Wait between two looks for what of memory could be better kept."
    )
    file_bucket: str = Field(
        default="", description="Bucket that speaks S3 and keeps the bytes of files; empty: the database does."
    )
    file_bucket_endpoint: str = Field(default="", description="Address of the bucket's storage; empty: Amazon's.")
    file_bucket_region: str = Field(default="us-east-1", description="Region of the bucket.")
    file_bucket_access_key: str = Field(
        default="", description="Name of the key to the bucket; empty: what the environment gives to Amazon's tools."
    )
    file_bucket_secret_key: SecretStr = Field(default=SecretStr(""), description="Secret of the key to the bucket.")
    file_readers: int = Field(default=2, ge=1, le=64, description="Files that this process reads at once.")
    file_pause_seconds: float = Field(
        default=2.0, gt=0, description="Wait between two looks for files to read, and for what is left of deleted ones."
    )
    file_timeout_seconds: float = Field(default=60.0, gt=0, description="Longest time that parsing a file may take.")
    file_memory_bytes: int = Field(default=512 << 20, gt=0, description="Most memory that parsing a file may take.")
    upload_days: float = Field(
        default=1.0, gt=0, description="How long what came of an upload is kept that nobody goes on with."
    )
    file_isolation: Literal["none", "landlock", "namespace"] = Field(
        default="landlock", description="Weakest isolation that files may be parsed with."
    )
    allow_unsandboxed: bool = Field(
        default=False, description="Parse files without isolation where the host offers none."
    )
    suggestion_days: float = Field(
        default=90.0, gt=0, description="How long suggestions are kept that were accepted or are outdated."
    )
    step_days: float = Field(
        default=7.0, gt=0, description="How long a repeat of a step is known as one; longer than any run may take."
    )
    place_days: float = Field(default=30.0, gt=0, description="How long the id of a deleted row works as a cursor.")
    prune_seconds: float = Field(default=600.0, gt=0, description="Wait between two removals of old records.")
