-- Wakes who watches the blocks of the organizations that these rows are of; where nobody does, that costs a look at one row. A notice makes
-- commits wait for each other, so none is given for nothing. Locks: none.
create or replace function memory.tell_blocks() returns trigger language plpgsql as $$
begin
  perform pg_notify('memory_blocks', w.organization_id) from memory.block_watches w
  where w.organization_id in (select c.organization_id from changed c) and w.until > now();
  return null;
end $$;
create or replace trigger block_history_tell after insert on memory.block_history
  referencing new table as changed for each statement execute function memory.tell_blocks();
create or replace trigger blocks_tell after delete on memory.blocks
  referencing old table as changed for each statement execute function memory.tell_blocks();
create or replace trigger agent_blocks_tell_added after insert on memory.agent_blocks
  referencing new table as changed for each statement execute function memory.tell_blocks();
create or replace trigger agent_blocks_tell_removed after delete on memory.agent_blocks
  referencing old table as changed for each statement execute function memory.tell_blocks();
create or replace trigger conversation_blocks_tell_added after insert on memory.conversation_blocks
  referencing new table as changed for each statement execute function memory.tell_blocks();
create or replace trigger conversation_blocks_tell_removed after delete on memory.conversation_blocks
  referencing old table as changed for each statement execute function memory.tell_blocks();
