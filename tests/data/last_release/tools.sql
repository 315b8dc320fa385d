CREATE SCHEMA tools;
CREATE FUNCTION tools.begin_execution(p_organization_id text, p_key text, p_hash text, p_tool_id text, p_agent_id text, p_lease interval, p_again boolean) RETURNS TABLE(begun boolean, call_hash text, result bytea, is_running boolean)
    LANGUAGE plpgsql
    AS $$
begin
  insert into tools.executions as e
    (organization_id, idempotency_key, call_hash, tool_id, agent_id, lease_until)
  values (p_organization_id, p_key, p_hash, p_tool_id, p_agent_id, now() + p_lease)
  on conflict (organization_id, idempotency_key) do update
    set attempt = e.attempt + 1, lease_until = excluded.lease_until
    where p_again and e.finished_at is null and e.lease_until <= now() and e.call_hash = excluded.call_hash;
  if found then
    return query select true, p_hash, null::bytea, false;
    return;
  end if;
  return query
    select false, e.call_hash, e.result, e.finished_at is null and e.lease_until > now()
    from tools.executions e
    where e.organization_id = p_organization_id and e.idempotency_key = p_key;
end $$;
CREATE FUNCTION tools.keep_tool_version() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
  insert into tools.tool_versions (organization_id, id,
    name, tool_type, description, source_type, source_code, json_schema, args_json_schema, tags, return_char_limit,
    pip_requirements, npm_requirements, default_requires_approval, enable_parallel_execution, idempotent, metadata,
    project_id, mcp_server_id, mcp_name, created_by_id, last_updated_by_id, version, created_at, updated_at)
  select new.organization_id, new.id, new.name, new.tool_type, new.description, new.source_type, new.source_code,
    new.json_schema, new.args_json_schema, new.tags, new.return_char_limit, new.pip_requirements,
    new.npm_requirements, new.default_requires_approval, new.enable_parallel_execution, new.idempotent, new.metadata,
    new.project_id, new.mcp_server_id, new.mcp_name, new.created_by_id, new.last_updated_by_id, new.version,
    new.created_at, new.updated_at
  on conflict (organization_id, id, version) do nothing;
  delete from tools.tool_versions v
  where v.organization_id = new.organization_id and v.id = new.id and v.version <= new.version - 100;
  return null;
end $$;
CREATE TABLE tools.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE tools.environment_variables (
    organization_id text NOT NULL,
    id text NOT NULL,
    sandbox_config_id text NOT NULL,
    key text NOT NULL,
    value bytea NOT NULL,
    description text,
    created_by_id text DEFAULT ''::text NOT NULL,
    last_updated_by_id text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE tools.executions (
    organization_id text NOT NULL,
    idempotency_key text NOT NULL,
    call_hash text NOT NULL,
    tool_id text DEFAULT ''::text NOT NULL,
    agent_id text DEFAULT ''::text NOT NULL,
    attempt integer DEFAULT 1 NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    lease_until timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    result bytea
);
CREATE TABLE tools.mcp_oauth_grants (
    organization_id text NOT NULL,
    mcp_server_id text NOT NULL,
    grant_sealed bytea NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE tools.mcp_oauth_sessions (
    organization_id text NOT NULL,
    id text NOT NULL,
    mcp_server_id text NOT NULL,
    state_hash bytea NOT NULL,
    status text NOT NULL,
    answer bytea,
    created_by_id text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL
);
CREATE TABLE tools.mcp_servers (
    organization_id text NOT NULL,
    id text NOT NULL,
    server_name text NOT NULL,
    server_type text NOT NULL,
    config text NOT NULL,
    secrets bytea NOT NULL,
    created_by_id text DEFAULT ''::text NOT NULL,
    last_updated_by_id text DEFAULT ''::text NOT NULL,
    version bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE tools.sandbox_configs (
    organization_id text NOT NULL,
    id text NOT NULL,
    type text NOT NULL,
    config text NOT NULL,
    created_by_id text DEFAULT ''::text NOT NULL,
    last_updated_by_id text DEFAULT ''::text NOT NULL,
    version bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE tools.tool_versions (
    organization_id text NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    tool_type text NOT NULL,
    description text,
    source_type text NOT NULL,
    source_code text,
    json_schema text NOT NULL,
    args_json_schema text NOT NULL,
    tags text[] NOT NULL,
    return_char_limit integer NOT NULL,
    pip_requirements jsonb NOT NULL,
    npm_requirements jsonb NOT NULL,
    default_requires_approval boolean,
    enable_parallel_execution boolean NOT NULL,
    idempotent boolean NOT NULL,
    metadata text NOT NULL,
    project_id text,
    mcp_server_id text,
    mcp_name text,
    created_by_id text NOT NULL,
    last_updated_by_id text NOT NULL,
    version bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE tools.tools (
    organization_id text NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    tool_type text NOT NULL,
    description text,
    source_type text NOT NULL,
    source_code text,
    json_schema text NOT NULL,
    args_json_schema text DEFAULT ''::text NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    return_char_limit integer NOT NULL,
    pip_requirements jsonb DEFAULT '[]'::jsonb NOT NULL,
    npm_requirements jsonb DEFAULT '[]'::jsonb NOT NULL,
    default_requires_approval boolean,
    enable_parallel_execution boolean DEFAULT false NOT NULL,
    idempotent boolean DEFAULT false NOT NULL,
    metadata text DEFAULT '{}'::text NOT NULL,
    project_id text,
    mcp_server_id text,
    mcp_name text,
    created_by_id text DEFAULT ''::text NOT NULL,
    last_updated_by_id text DEFAULT ''::text NOT NULL,
    version bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    search_text text NOT NULL,
    search tsvector GENERATED ALWAYS AS (to_tsvector('english'::regconfig, search_text)) STORED
);
ALTER TABLE ONLY tools.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY tools.environment_variables
    ADD CONSTRAINT environment_variables_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY tools.executions
    ADD CONSTRAINT executions_pkey PRIMARY KEY (organization_id, idempotency_key);
ALTER TABLE ONLY tools.mcp_oauth_grants
    ADD CONSTRAINT mcp_oauth_grants_pkey PRIMARY KEY (organization_id, mcp_server_id);
ALTER TABLE ONLY tools.mcp_oauth_sessions
    ADD CONSTRAINT mcp_oauth_sessions_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY tools.mcp_servers
    ADD CONSTRAINT mcp_servers_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY tools.sandbox_configs
    ADD CONSTRAINT sandbox_configs_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY tools.tool_versions
    ADD CONSTRAINT tool_versions_pkey PRIMARY KEY (organization_id, id, version);
ALTER TABLE ONLY tools.tools
    ADD CONSTRAINT tools_pkey PRIMARY KEY (organization_id, id);
CREATE UNIQUE INDEX environment_variables_key ON tools.environment_variables USING btree (organization_id, sandbox_config_id, key);
CREATE INDEX executions_started ON tools.executions USING btree (organization_id, started_at);
CREATE INDEX mcp_oauth_sessions_server ON tools.mcp_oauth_sessions USING btree (organization_id, mcp_server_id);
CREATE UNIQUE INDEX mcp_servers_name ON tools.mcp_servers USING btree (organization_id, server_name);
CREATE UNIQUE INDEX sandbox_configs_type ON tools.sandbox_configs USING btree (organization_id, type);
CREATE INDEX tools_created ON tools.tools USING btree (organization_id, created_at, id);
CREATE INDEX tools_mcp_server ON tools.tools USING btree (organization_id, mcp_server_id) WHERE (mcp_server_id IS NOT NULL);
CREATE UNIQUE INDEX tools_name ON tools.tools USING btree (organization_id, name);
CREATE INDEX tools_search ON tools.tools USING gin (organization_id, search);
CREATE TRIGGER tools_keep_version AFTER INSERT OR UPDATE ON tools.tools FOR EACH ROW EXECUTE FUNCTION tools.keep_tool_version();
ALTER TABLE ONLY tools.environment_variables
    ADD CONSTRAINT environment_variables_organization_id_sandbox_config_id_fkey FOREIGN KEY (organization_id, sandbox_config_id) REFERENCES tools.sandbox_configs(organization_id, id) ON DELETE CASCADE;
ALTER TABLE ONLY tools.mcp_oauth_grants
    ADD CONSTRAINT mcp_oauth_grants_organization_id_mcp_server_id_fkey FOREIGN KEY (organization_id, mcp_server_id) REFERENCES tools.mcp_servers(organization_id, id) ON DELETE CASCADE;
ALTER TABLE ONLY tools.mcp_oauth_sessions
    ADD CONSTRAINT mcp_oauth_sessions_organization_id_mcp_server_id_fkey FOREIGN KEY (organization_id, mcp_server_id) REFERENCES tools.mcp_servers(organization_id, id) ON DELETE CASCADE;
ALTER TABLE ONLY tools.tool_versions
    ADD CONSTRAINT tool_versions_organization_id_id_fkey FOREIGN KEY (organization_id, id) REFERENCES tools.tools(organization_id, id) ON DELETE CASCADE;
ALTER TABLE ONLY tools.tools
    ADD CONSTRAINT tools_mcp_server_fk FOREIGN KEY (organization_id, mcp_server_id) REFERENCES tools.mcp_servers(organization_id, id) ON DELETE CASCADE;
INSERT INTO tools.alembic_version VALUES ('0003');
