CREATE TABLE tenants (
    id text PRIMARY KEY
);

CREATE TABLE users (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    email bytea NOT NULL,
    email_index bytea NOT NULL,
    name bytea NOT NULL,
    phone bytea,
    password text NOT NULL
);

CREATE INDEX users_by_email ON users (email_index);
CREATE INDEX users_of_tenant ON users (tenant_id, id);
