"""The agent's state as a tool sees it: plain data with the names that Letta's tools use."""

from __future__ import annotations

from typing import Any


class Data(dict[str, Any]):
    """A JSON object whose members are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def data(value: Any) -> Any:
    if isinstance(value, dict):
        return Data({key: data(item) for key, item in value.items()})
    if isinstance(value, list):
        return [data(item) for item in value]
    return value


class Memory(Data):
    """The blocks in the agent's context."""

    def get_blocks(self) -> list[Any]:
        """Return every block."""
        return list(self.setdefault("blocks", []))

    def list_block_labels(self) -> list[str]:
        """Return the labels."""
        return [block["label"] for block in self.get_blocks()]

    def get_block(self, label: str) -> Any:
        """Return one block. Raises KeyError naming the labels that exist."""
        for block in self.get_blocks():
            if block["label"] == label:
                return block
        raise KeyError(
            f"Block field {label} does not exist (available sections = {', '.join(self.list_block_labels())})"
        )

    def update_block_value(self, label: str, value: str) -> None:
        """Set the text of one block."""
        if not isinstance(value, str):
            raise ValueError("Provided value must be a string")  # noqa: TRY004 - the error that Letta's tools know
        self.get_block(label)["value"] = value


class AgentState(Data):
    """The state that goes into a call; `changes` is what comes back."""

    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__(data(state))
        blocks = self.get("blocks") or (self.get("memory") or {}).get("blocks") or []
        memory = Memory(self.get("memory") or {})
        memory["blocks"] = self["blocks"] = blocks
        self["memory"] = memory
        # Past `Data`, which would make it a member of the state.
        dict.__setattr__(self, "_before", {block["label"]: block.get("value") for block in blocks})

    def changes(self) -> dict[str, Any]:
        """Return the blocks whose text the tool changed, by label; empty when none."""
        before: dict[str, Any] = dict.__getattribute__(self, "_before")
        after = {block["label"]: block.get("value") for block in self["memory"]["blocks"]}
        changed = {label: value for label, value in after.items() if label in before and before[label] != value}
        return {"blocks": changed} if changed else {}
