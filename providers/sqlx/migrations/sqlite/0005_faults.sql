-- What failed in a job, by kind, and when its last range was completed. Only adds, so that a library that knows version 1
-- works on.

ALTER TABLE encx_jobs ADD COLUMN completed_at INTEGER;

-- Rows of earlier runs are deleted when the job begins anew.
CREATE TABLE encx_job_faults (
    job      TEXT NOT NULL REFERENCES encx_jobs (name),
    run      INTEGER NOT NULL,
    kind     TEXT NOT NULL CHECK (length(CAST(kind AS BLOB)) BETWEEN 1 AND 40),
    items    INTEGER NOT NULL CHECK (items >= 0),
    -- The first items, by name: an array of texts.
    examples TEXT NOT NULL CHECK (json_valid(examples) AND json_type(examples) = 'array'),
    PRIMARY KEY (job, run, kind)
) STRICT;
