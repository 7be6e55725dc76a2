-- What lists and reports need: keys by the pairs of their context, the audit log by scope and time, and what processes
-- count by the day. Only adds, so that a library that knows version 1 works on.

-- Lists by pairs of the context.
CREATE INDEX data_keys_context ON encx.data_keys USING gin (context jsonb_path_ops);

CREATE INDEX audit_log_scope ON encx.audit_log (scope, seq);
CREATE INDEX audit_log_at ON encx.audit_log (at, seq);

-- What all processes together counted. Days are those of UTC; rows of days long past are deleted.
CREATE TABLE encx.daily_counts (
    day   date NOT NULL,
    what  text NOT NULL CHECK (octet_length(what) BETWEEN 1 AND 64),
    count bigint NOT NULL CHECK (count >= 0),
    PRIMARY KEY (day, what)
);
