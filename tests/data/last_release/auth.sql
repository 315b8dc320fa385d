CREATE SCHEMA auth;
CREATE TABLE auth.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE auth.api_keys (
    id text NOT NULL,
    organization_id text NOT NULL,
    user_id text NOT NULL,
    name text NOT NULL,
    secret_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone NOT NULL,
    created_by_id text NOT NULL,
    expires_at timestamp with time zone,
    last_used_at timestamp with time zone,
    revoked_at timestamp with time zone,
    development boolean DEFAULT false NOT NULL
);
CREATE TABLE auth.audit_log (
    organization_id text NOT NULL,
    seq bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    actor_user_id text NOT NULL,
    action text NOT NULL,
    target_id text NOT NULL,
    request_id text NOT NULL,
    hash bytea NOT NULL
);
CREATE TABLE auth.organizations (
    id text NOT NULL,
    name text NOT NULL,
    privileged_tools boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    is_deleted boolean DEFAULT false NOT NULL,
    audit_seq bigint DEFAULT 0 NOT NULL,
    audit_hash bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE auth.signing_keys (
    id text NOT NULL,
    public_key bytea NOT NULL,
    sealed_private_key bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    retired_at timestamp with time zone
);
CREATE TABLE auth.users (
    id text NOT NULL,
    organization_id text NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    is_deleted boolean DEFAULT false NOT NULL
);
ALTER TABLE ONLY auth.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY auth.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY auth.audit_log
    ADD CONSTRAINT audit_log_pkey PRIMARY KEY (organization_id, seq);
ALTER TABLE ONLY auth.organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY auth.signing_keys
    ADD CONSTRAINT signing_keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY auth.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);
CREATE INDEX api_keys_of_organization ON auth.api_keys USING btree (organization_id, created_at, id);
CREATE INDEX api_keys_of_user ON auth.api_keys USING btree (user_id);
CREATE INDEX organizations_created ON auth.organizations USING btree (created_at, id);
CREATE INDEX users_created ON auth.users USING btree (created_at, id);
CREATE INDEX users_of_organization ON auth.users USING btree (organization_id, created_at, id);
ALTER TABLE ONLY auth.api_keys
    ADD CONSTRAINT api_keys_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES auth.organizations(id);
ALTER TABLE ONLY auth.api_keys
    ADD CONSTRAINT api_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES auth.users(id);
ALTER TABLE ONLY auth.audit_log
    ADD CONSTRAINT audit_log_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES auth.organizations(id);
ALTER TABLE ONLY auth.users
    ADD CONSTRAINT users_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES auth.organizations(id);
INSERT INTO auth.alembic_version VALUES ('0002');
