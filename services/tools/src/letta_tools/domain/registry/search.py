"""Ranking of tools that a search found."""

from __future__ import annotations

from collections.abc import Sequence

from letta.tools.v1.tool_service_pb2 import ToolSearchResult
from letta_tools.domain.registry.messages import pack_tool
from letta_tools.domain.registry.records import Match, RegisteredTool


def search_text(tool: RegisteredTool) -> str:
    """Return the text that a search looks at."""
    return "\n".join(filter(None, (tool.name.replace("_", " "), tool.description or "", " ".join(tool.tags))))


def fuse(matches: Sequence[Match], mode: str) -> list[ToolSearchResult]:
    """Rank matches by words, by likeness, or by both: each score is scaled to its best before they are added."""
    by_words = _ranked(matches, [match.words for match in matches]) if mode != "vector" else {}
    by_likeness = _ranked(matches, [match.likeness for match in matches]) if mode != "fts" else {}
    parts = (by_words, by_likeness) if mode == "hybrid" else (by_words or by_likeness,)
    found = [
        ToolSearchResult(
            tool=pack_tool(match.tool),
            embedded_text=match.text,
            fts_rank=by_words[index][0] if index in by_words else None,
            vector_rank=by_likeness[index][0] if index in by_likeness else None,
            combined_score=sum(part[index][1] for part in parts if index in part) / len(parts),
        )
        for index, match in enumerate(matches)
        if index in by_words or index in by_likeness
    ]
    return sorted(found, key=lambda item: (-item.combined_score, item.tool.name))


def _ranked(matches: Sequence[Match], scores: Sequence[float | None]) -> dict[int, tuple[int, float]]:
    """Return rank and scaled score by index."""
    order = sorted(
        (index for index, score in enumerate(scores) if score),
        key=lambda index: (-(scores[index] or 0.0), matches[index].tool.name),
    )
    best = (scores[order[0]] or 1.0) if order else 1.0
    return {index: (rank, (scores[index] or 0.0) / best) for rank, index in enumerate(order, 1)}
