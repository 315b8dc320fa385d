"""Files as they are once they were read, without the reading."""

from __future__ import annotations

import psycopg

from letta_common.values.ids import new_id

PART = 20_000
"""Characters of each part of a text but the last."""


def put_file(dsn: str, folder_id: str, name: str, text: str, *, org: str = "org-a", chunks: int = 0) -> str:
    """Store a file with its text, and with chunks of it that no vector has; return its id."""
    file_id = new_id("file")
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "insert into memory.files (organization_id, folder_id, id, name, original_name, media_type, size_bytes, "
            "text_bytes, status, created_at, updated_at) "
            "values (%s, %s, %s, %s, %s, 'text/plain', %s, %s, 2, now(), now())",
            (org, folder_id, file_id, name, name, len(text), len(text.encode())),
        )
        parts = [text[at : at + PART] for at in range(0, len(text), PART)] or [""]
        before = 0
        for number, part in enumerate(parts):
            conn.execute(
                "insert into memory.file_texts (organization_id, file_id, number, first_line, text) "
                "values (%s, %s, %s, %s, %s)",
                (org, file_id, number, before, part),
            )
            before += part.count("\n")
        lines = text.splitlines() if chunks else []
        size = -(-len(lines) // chunks) if chunks else 1
        for place in range(chunks):
            passage_id = new_id("passage")
            conn.execute(
                "select memory.write_passages(p_org => %s, p_user => null, p_agent => null, p_archive => %s, "
                "p_new_archive => null, p_now => now(), p_embedder => '', p_ids => array[%s], p_texts => array[%s], "
                "p_metadata => array['{}'], p_tags => null, p_times => array[now()], "
                "p_vectors => array[null::extensions.halfvec], p_origins => array[''], p_request_hash => ''::bytea)",
                (org, folder_id, passage_id, "\n".join(lines[place * size :][:size])),
            )
            conn.execute(
                "update memory.passages set file_id = %s, file_place = %s where organization_id = %s and id = %s",
                (file_id, place, org, passage_id),
            )
        conn.execute(
            "update memory.files set status = 4, chunk_count = %s where organization_id = %s and id = %s",
            (chunks, org, file_id),
        )
    return file_id
