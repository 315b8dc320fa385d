-- Claims objects of the bucket that belong to no file, of whichever organization: those whose time has come, and what a dead process
-- claimed. None of them can become a part any more. Locks: the notes; what somebody else claims is left to them.
create or replace function memory.claim_loose_objects(p_most integer) returns table (organization_id text, object text)
language sql as $$
  update memory.loose_objects l set claimed = true where (l.organization_id, l.object) in (
    select c.organization_id, c.object from memory.loose_objects c
    where c.due_at < now() order by c.due_at limit p_most for update skip locked)
  returning l.organization_id, l.object
$$;
