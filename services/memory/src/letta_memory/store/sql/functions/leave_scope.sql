-- Notes that an archive goes, so that what search kept of it is removed in the background: before its passages go.
create or replace function memory.leave_scope() returns trigger language plpgsql as $$
begin
  update memory.search_scopes s set gone = true
  where s.organization_id = old.organization_id and s.owner_id = old.id;
  return old;
end $$;
create or replace trigger archives_leave_scope before delete on memory.archives
  for each row execute function memory.leave_scope();
