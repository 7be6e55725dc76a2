CREATE TABLE tenants (
    id text PRIMARY KEY NOT NULL
) STRICT;

CREATE TABLE users (
    id blob PRIMARY KEY NOT NULL,
    tenant_id text NOT NULL REFERENCES tenants,
    email blob NOT NULL,
    email_index blob NOT NULL,
    name blob NOT NULL,
    phone blob,
    password text NOT NULL
) STRICT;

CREATE INDEX users_by_email ON users (email_index);
CREATE INDEX users_of_tenant ON users (tenant_id, id);
