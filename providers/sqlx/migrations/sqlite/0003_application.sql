-- Who changed a key, as far as SQLite can tell: which application. Empty for what an older library wrote, which works on.

ALTER TABLE encx_audit_log ADD COLUMN application TEXT NOT NULL DEFAULT '';
