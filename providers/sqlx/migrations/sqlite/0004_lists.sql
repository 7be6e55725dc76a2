-- What lists and reports need: the audit log by scope and time, and what processes count by the day. Only adds, so that
-- a library that knows version 1 works on. Lists by pairs of the context read all keys: SQLite indexes no JSON.

CREATE INDEX encx_audit_log_scope ON encx_audit_log (scope, seq);
CREATE INDEX encx_audit_log_at ON encx_audit_log (at, seq);

-- What all processes together counted. Days are those of UTC, numbered from 1970-01-01; rows of days long past are deleted.
CREATE TABLE encx_daily_counts (
    day   INTEGER NOT NULL,
    what  TEXT NOT NULL CHECK (length(CAST(what AS BLOB)) BETWEEN 1 AND 64),
    count INTEGER NOT NULL CHECK (count >= 0),
    PRIMARY KEY (day, what)
) STRICT;
