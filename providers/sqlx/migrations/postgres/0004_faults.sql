-- What failed in a job, by kind, and when its last range was completed. Only adds, so that a library that knows version 1
-- works on.

ALTER TABLE encx.jobs ADD COLUMN completed_at timestamptz;

-- Rows of earlier runs are deleted when the job begins anew.
CREATE TABLE encx.job_faults (
    job      text NOT NULL REFERENCES encx.jobs (name),
    run      bigint NOT NULL,
    kind     text NOT NULL CHECK (octet_length(kind) BETWEEN 1 AND 40),
    items    bigint NOT NULL CHECK (items >= 0),
    -- The first items, by name: an array of texts.
    examples jsonb NOT NULL CHECK (jsonb_typeof(examples) = 'array'),
    PRIMARY KEY (job, run, kind)
);
