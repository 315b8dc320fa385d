-- Says whether an object of the bucket may still become a part, and keeps it from being removed until the transaction ends; without an
-- object there is nothing to hold. Locks: the note of the object.
create or replace function memory.hold_object(p_org text, p_object text) returns boolean language plpgsql as $$
begin
  perform from memory.loose_objects l where l.organization_id = p_org and l.object = p_object and not l.claimed for update;
  return found or p_object is null;
end $$;
