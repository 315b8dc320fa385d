"""The built-in tools: what the model is told of them. Their work is done by the agent loop, except for code and web."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from letta_tool_schemas.schemas import FunctionSchema
from letta_tools.domain.registry.records import RegisteredTool, ToolType

_Parameter = tuple[str, dict[str, Any], bool]


@dataclass(frozen=True, slots=True)
class BuiltinTool:
    """A tool that exists in every organization."""

    tool_type: ToolType
    schema: FunctionSchema
    parallel: bool = False

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.schema.name


def _required(name: str, description: str, kind: str = "string", **more: Any) -> _Parameter:
    return name, {"type": kind, **more, "description": description}, True


def _optional(name: str, description: str, kind: str = "string", **more: Any) -> _Parameter:
    return name, {"type": kind, **more, "description": description}, False


def _tool(
    tool_type: ToolType, name: str, description: str, *parameters: _Parameter, parallel: bool = False
) -> BuiltinTool:
    properties = {key: schema for key, schema, _ in parameters}
    required = [key for key, _, is_required in parameters if is_required]
    schema = {"type": "object", "properties": properties, "required": required}
    return BuiltinTool(tool_type, FunctionSchema(name, description, schema), parallel)


_STRINGS: Mapping[str, Any] = {"items": {"type": "string"}}
_LABEL = _required("label", "Label of the memory block to edit.")
_NO_NUMBERS = "Leave out the line numbers that the block is displayed with."
_DATE = "ISO 8601, either a date (2024-01-31) or a date and time (2024-01-31T14:30); the agent's time zone applies."

_CORE = (
    _tool(
        ToolType.LETTA_CORE,
        "send_message",
        "Say something to the user. Nothing else that you write reaches the user.",
        _required("message", "What to say. Any Unicode, emoji included."),
    ),
    _tool(
        ToolType.LETTA_CORE,
        "conversation_search",
        "Search everything that was said in earlier conversations, also what is no longer in your context. Matches "
        "words and meaning. Give a query, a time range, roles, or any mix of them.",
        _optional("query", "What to look for. Without it, the other filters alone decide."),
        _optional(
            "roles",
            "Only messages of these roles.",
            "array",
            items={"type": "string", "enum": ["assistant", "user", "tool"]},
        ),
        _optional("limit", "Most results to return. Default: 5.", "integer"),
        _optional("start_date", f"Only messages from this time on, inclusive. {_DATE}"),
        _optional("end_date", f"Only messages up to this time, inclusive; a bare date means its whole day. {_DATE}"),
        parallel=True,
    ),
    _tool(
        ToolType.LETTA_CORE,
        "archival_memory_insert",
        "Store a fact, summary or note in archival memory, where it stays for good and is found by meaning. Write one "
        "self-contained statement, with names and dates, so that it can be understood without this conversation.",
        _required("content", "The text to store."),
        _optional("tags", "Categories to find it by later.", "array", **_STRINGS),
    ),
    _tool(
        ToolType.LETTA_CORE,
        "archival_memory_search",
        "Search archival memory by meaning and words. The best matches come first.",
        _required("query", "What to look for, in natural language."),
        _optional("tags", "Only entries with these tags.", "array", **_STRINGS),
        _optional(
            "tag_match_mode",
            "`any`: one of the tags is enough (default). `all`: every tag must be there.",
            enum=["any", "all"],
        ),
        _optional("top_k", "Most results to return. Default: 5.", "integer"),
        _optional("start_datetime", f"Only entries from this time on, inclusive. {_DATE}"),
        _optional("end_datetime", f"Only entries up to this time, inclusive; a bare date means its whole day. {_DATE}"),
        parallel=True,
    ),
)

_MEMORY = (
    _tool(
        ToolType.LETTA_MEMORY_CORE,
        "core_memory_append",
        "Add text at the end of a memory block, on a new line.",
        _LABEL,
        _required("content", "The text to add."),
    ),
    _tool(
        ToolType.LETTA_MEMORY_CORE,
        "core_memory_replace",
        "Replace text in a memory block. To delete, replace it with an empty string.",
        _LABEL,
        _required("old_content", "The text to replace, exactly as it stands in the block."),
        _required("new_content", "The text to put in its place."),
    ),
    _tool(
        ToolType.LETTA_MEMORY_CORE,
        "memory",
        "Manage memory blocks as if they were files, `/memories/<label>`. Commands: `create` (path, description, "
        "file_text), `str_replace` (path, old_string, new_string), `insert` (path, insert_line, insert_text), `delete` "
        "(path), `rename` (old_path and new_path; or path and description to describe the block anew).",
        _required("command", "What to do.", enum=["create", "str_replace", "insert", "delete", "rename"]),
        _optional("path", "The block, `/memories/<label>`."),
        _optional("file_text", "Text of the new block, for `create`."),
        _optional("description", "What the block is for, for `create` and `rename`."),
        _optional("old_string", "The text to replace, for `str_replace`; it must occur exactly once."),
        _optional("new_string", "The text to put in its place, for `str_replace`."),
        _optional("insert_line", "Insert after this line, for `insert`; 0 is the top.", "integer"),
        _optional("insert_text", "The text to insert, for `insert`."),
        _optional("old_path", "The block to rename, for `rename`."),
        _optional("new_path", "Its new path, for `rename`."),
    ),
    _tool(
        ToolType.LETTA_MEMORY_CORE,
        "memory_apply_patch",
        "Edit memory blocks with a patch. For one block, give its label and hunks: lines that begin with a blank are "
        "context, `-` removes, `+` adds, `@@` separates hunks; context must match exactly once. For several blocks, "
        "use the headers `*** Add Block: <label>`, `*** Update Block: <label>`, `*** Delete Block: <label>` and "
        "`*** Move to: <label>`, each followed by its lines.",
        _LABEL,
        _required("patch", "The patch."),
    ),
)

_SLEEPTIME = (
    _tool(
        ToolType.LETTA_SLEEPTIME_CORE,
        "memory_replace",
        "Replace one passage of a memory block. The old text must occur exactly once: take in enough of its "
        "surroundings to make it unique.",
        _LABEL,
        _required(
            "old_string", f"The text to replace, exactly as it stands, blanks and line breaks too. {_NO_NUMBERS}"
        ),
        _required("new_string", f"The text to put in its place. Empty: the old text is deleted. {_NO_NUMBERS}"),
    ),
    _tool(
        ToolType.LETTA_SLEEPTIME_CORE,
        "memory_insert",
        "Insert text into a memory block, after a line or at its end.",
        _LABEL,
        _required("new_string", f"The text to insert. {_NO_NUMBERS}"),
        _optional("insert_line", "Insert after this line: 0 is the top, -1 the end. Default: -1.", "integer"),
    ),
    _tool(
        ToolType.LETTA_SLEEPTIME_CORE,
        "memory_rethink",
        "Write a memory block anew: for large changes, reordering or condensing. For small edits use memory_replace or "
        "memory_insert. What you leave out is lost.",
        _LABEL,
        _required("new_memory", f"The whole new text of the block. {_NO_NUMBERS}"),
    ),
    _tool(
        ToolType.LETTA_SLEEPTIME_CORE,
        "memory_finish_edits",
        "Say that you have finished editing memory. Call it when everything is up to date.",
    ),
)

_OTHER_AGENT = _required("other_agent_id", "Id of the agent, `agent-...`.")
_MULTI_AGENT = (
    _tool(
        ToolType.LETTA_MULTI_AGENT_CORE,
        "send_message_to_agent_and_wait_for_reply",
        "Send a message to another agent and wait for its answer. The other agent is told who sends it.",
        _required("message", "What to say."),
        _OTHER_AGENT,
    ),
    _tool(
        ToolType.LETTA_MULTI_AGENT_CORE,
        "send_message_to_agent_async",
        "Send a message to another agent without waiting for an answer.",
        _required("message", "What to say."),
        _OTHER_AGENT,
    ),
    _tool(
        ToolType.LETTA_MULTI_AGENT_CORE,
        "send_message_to_agents_matching_tags",
        "Send a message to every agent with certain tags, yourself excepted, and collect the answers.",
        _required("message", "What to say."),
        _required("match_all", "Tags that an agent must all have.", "array", **_STRINGS),
        _required("match_some", "Tags of which an agent must have at least one.", "array", **_STRINGS),
    ),
)

_CHUNK = {
    "type": "object",
    "properties": {
        "start_index": {"type": "integer", "description": "Number of the first line of the chunk."},
        "end_index": {"type": "integer", "description": "Number of its last line, inclusive."},
        "context": {"type": "string", "description": "What one must know to understand the chunk by itself."},
    },
    "required": ["start_index", "end_index", "context"],
}
_VOICE = (
    _tool(
        ToolType.LETTA_VOICE_SLEEPTIME_CORE,
        "store_memories",
        "Keep parts of the conversation that will soon leave the context. Group lines that belong together.",
        _required("chunks", "The parts to keep.", "array", items=_CHUNK),
    ),
    _tool(
        ToolType.LETTA_VOICE_SLEEPTIME_CORE,
        "rethink_user_memory",
        "Write anew what is known about the user, with what was just learned taken in.",
        _required("new_memory", "The whole new text. What you leave out is lost."),
    ),
    _tool(
        ToolType.LETTA_VOICE_SLEEPTIME_CORE,
        "finish_rethinking_memory",
        "Say that you have finished with the memory. Call it when nothing is left to improve.",
    ),
    _tool(
        ToolType.LETTA_VOICE_SLEEPTIME_CORE,
        "search_memory",
        "Look for something the user said or you have noted earlier.",
        _optional("convo_keyword_queries", "Words to look for in the conversation.", "array", **_STRINGS),
        _optional("start_minutes_ago", "Only what is not older than this many minutes.", "integer"),
        _optional("end_minutes_ago", "Only what is older than this many minutes.", "integer"),
        parallel=True,
    ),
)

_FILE_REQUEST = {
    "type": "object",
    "properties": {
        "file_name": {"type": "string", "description": "The file, `<folder>/<file>`."},
        "offset": {"type": "integer", "description": "Lines to skip. Default: 0."},
        "length": {"type": "integer", "description": "Lines to show. Default: as many as fit."},
    },
    "required": ["file_name"],
}
_FILES = (
    _tool(
        ToolType.LETTA_FILES_CORE,
        "open_files",
        "Open files, or parts of them, so that you see their text in your context. When too many are open, those not "
        "used for longest are closed.",
        _required("file_requests", "The files to open.", "array", items=_FILE_REQUEST),
        _optional("close_all_others", "Close every other file. Default: false.", "boolean"),
    ),
    _tool(
        ToolType.LETTA_FILES_CORE,
        "grep_files",
        "Search the lines of the attached files with a regular expression, in any case. Shows up to 20 matches at a "
        "time with file and line number.",
        _required("pattern", "The regular expression, of at most 1,000 characters."),
        _optional("include", "Only files whose name matches this, for example `*.md`."),
        _optional("context_lines", "Lines to show before and after each match. Default: 1.", "integer"),
        _optional("offset", "Matches to skip, to see more than the first 20. Default: 0.", "integer"),
        parallel=True,
    ),
    _tool(
        ToolType.LETTA_FILES_CORE,
        "semantic_search_files",
        "Search the attached files by meaning. Use grep_files for exact text.",
        _required("query", "What to look for, in natural language."),
        _optional("limit", "Most results to return, at most 50. Default: 5.", "integer"),
        parallel=True,
    ),
)

_LANGUAGES = ["python", "js", "ts", "r", "java"]
_BUILTIN = (
    _tool(
        ToolType.LETTA_BUILTIN,
        "run_code",
        "Run code in a sandbox and see its result and output. Nothing is kept between runs, and there is no network. "
        "Set `result`, or end with an expression, to return a value.",
        _required("code", "The code to run."),
        _required("language", "Language of the code.", enum=_LANGUAGES),
        parallel=True,
    ),
    _tool(
        ToolType.LETTA_BUILTIN,
        "run_code_with_tools",
        "Run Python code in a sandbox that can call your other tools as functions. Not every deployment allows this.",
        _required("code", "The Python code to run."),
    ),
    _tool(
        ToolType.LETTA_BUILTIN,
        "web_search",
        "Search the web. Fetch the pages that look promising with fetch_webpage.",
        _required("query", "What to look for."),
        _optional("num_results", "Most results to return, at most 100. Default: 10.", "integer"),
        _optional("category", "Kind of page to prefer, for example `news`, `research paper` or `company`."),
        _optional("include_text", "Return the text of the pages too. Default: false.", "boolean"),
        _optional("include_domains", "Only pages of these domains.", "array", **_STRINGS),
        _optional("exclude_domains", "No pages of these domains.", "array", **_STRINGS),
        _optional("start_published_date", "Only pages published from this date on (2024-01-31)."),
        _optional("end_published_date", "Only pages published up to this date (2024-01-31)."),
        _optional("user_location", "Country to search from, as a two-letter code."),
        parallel=True,
    ),
    _tool(
        ToolType.LETTA_BUILTIN,
        "fetch_webpage",
        "Fetch a web page and read its text.",
        _required("url", "Address of the page, http or https."),
        parallel=True,
    ),
)

BUILTIN_TOOLS: Mapping[str, BuiltinTool] = {
    tool.name: tool for tool in (*_CORE, *_MEMORY, *_SLEEPTIME, *_MULTI_AGENT, *_VOICE, *_FILES, *_BUILTIN)
}
"""Every built-in tool by name."""


def builtin_tools() -> list[RegisteredTool]:
    """Return the built-in tools as the registry keeps them; ids and times are the organization's."""
    return [
        RegisteredTool(
            id="",
            name=tool.name,
            tool_type=tool.tool_type,
            description=tool.schema.description,
            json_schema=tool.schema.to_json(),
            tags=(tool.tool_type.value,),
            enable_parallel_execution=tool.parallel,
            idempotent=tool.parallel,
        )
        for tool in BUILTIN_TOOLS.values()
    ]
