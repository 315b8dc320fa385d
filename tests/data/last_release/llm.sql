CREATE SCHEMA llm;
CREATE TABLE llm.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE llm.budgets (
    organization_id text NOT NULL,
    id text NOT NULL,
    scope smallint NOT NULL,
    subject_id text NOT NULL,
    period smallint NOT NULL,
    limit_microdollars bigint NOT NULL,
    action smallint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE llm.defaults (
    organization_id text NOT NULL,
    handle text NOT NULL,
    embedding_handle text NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE llm.provider_traces (
    organization_id text NOT NULL,
    id text NOT NULL,
    user_id text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    agent_id text NOT NULL,
    run_id text NOT NULL,
    step_id text NOT NULL,
    purpose text NOT NULL,
    model text NOT NULL,
    provider_type text NOT NULL,
    request_json text NOT NULL,
    response_json text NOT NULL
);
CREATE TABLE llm.providers (
    organization_id text NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    provider_type text NOT NULL,
    base_url text,
    region text,
    api_version text,
    api_key bytea,
    access_key bytea,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    last_synced timestamp with time zone
);
CREATE TABLE llm.spending (
    organization_id text NOT NULL,
    day date NOT NULL,
    user_id text NOT NULL,
    agent_id text NOT NULL,
    cost_microdollars bigint NOT NULL
);
CREATE TABLE llm.usage (
    organization_id text NOT NULL,
    id text NOT NULL,
    user_id text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    agent_id text NOT NULL,
    run_id text NOT NULL,
    step_id text NOT NULL,
    purpose text NOT NULL,
    model text NOT NULL,
    provider_type text NOT NULL,
    prompt_tokens integer NOT NULL,
    completion_tokens integer NOT NULL,
    cached_input_tokens integer NOT NULL,
    cache_write_tokens integer NOT NULL,
    reasoning_tokens integer NOT NULL,
    source smallint NOT NULL,
    cost_microdollars bigint,
    duration_ms bigint NOT NULL,
    outcome text NOT NULL
);
ALTER TABLE ONLY llm.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY llm.budgets
    ADD CONSTRAINT budgets_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY llm.budgets
    ADD CONSTRAINT budgets_subject UNIQUE (organization_id, scope, subject_id, period);
ALTER TABLE ONLY llm.defaults
    ADD CONSTRAINT defaults_pkey PRIMARY KEY (organization_id);
ALTER TABLE ONLY llm.provider_traces
    ADD CONSTRAINT provider_traces_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY llm.providers
    ADD CONSTRAINT providers_name UNIQUE (organization_id, name);
ALTER TABLE ONLY llm.providers
    ADD CONSTRAINT providers_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY llm.spending
    ADD CONSTRAINT spending_pkey PRIMARY KEY (organization_id, day, user_id, agent_id);
ALTER TABLE ONLY llm.usage
    ADD CONSTRAINT usage_pkey PRIMARY KEY (organization_id, id);
CREATE INDEX budgets_created ON llm.budgets USING btree (organization_id, created_at, id);
CREATE INDEX provider_traces_step ON llm.provider_traces USING btree (organization_id, step_id, created_at);
CREATE INDEX provider_traces_system_age ON llm.provider_traces USING btree (created_at);
CREATE INDEX providers_created ON llm.providers USING btree (organization_id, created_at, id);
CREATE INDEX usage_agent ON llm.usage USING btree (organization_id, agent_id, created_at);
CREATE INDEX usage_created ON llm.usage USING btree (organization_id, created_at);
CREATE INDEX usage_run ON llm.usage USING btree (organization_id, run_id);
INSERT INTO llm.alembic_version VALUES ('0002');
