-- What lets processes work together: leases, jobs that many share, and the registry of processes. Only adds, so that
-- a library that knows version 1 works on.
-- Ids of processes are bytes; times are microseconds since 1970-01-01T00:00:00Z.

-- The oldest version of these tables whose library works with them as they are from this one on; null if only its own.
ALTER TABLE encx_migrations
    ADD COLUMN compatible_from INTEGER CHECK (compatible_from BETWEEN 1 AND version);

CREATE TABLE encx_leases (
    name   TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 200),
    -- Who holds it, or held it last.
    holder BLOB NOT NULL CHECK (length(holder) = 16),
    since  INTEGER NOT NULL,
    until  INTEGER NOT NULL,
    -- Grows with every other holder.
    term   INTEGER NOT NULL CHECK (term >= 1),
    CHECK (until >= since)
) STRICT;

CREATE TABLE encx_jobs (
    name        TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 200),
    run         INTEGER NOT NULL CHECK (run >= 1),
    plan        TEXT NOT NULL CHECK (length(CAST(plan AS BLOB)) <= 8192),
    frontier    BLOB CHECK (length(frontier) <= 8192),
    at_end      INTEGER NOT NULL CHECK (at_end IN (0, 1)),
    finished    INTEGER NOT NULL CHECK (finished IN (0, 1)),
    -- How many ranges there were in this run, and how many of them are not complete.
    ranges      INTEGER NOT NULL CHECK (ranges >= 0),
    open_ranges INTEGER NOT NULL CHECK (open_ranges BETWEEN 0 AND ranges),
    changed     INTEGER NOT NULL CHECK (changed >= 0),
    unchanged   INTEGER NOT NULL CHECK (unchanged >= 0),
    failed      INTEGER NOT NULL CHECK (failed >= 0),
    CHECK (finished = (at_end AND open_ranges = 0))
) STRICT;

-- Ranges that were claimed and are not complete: what is complete is counted in its job and deleted here.
CREATE TABLE encx_job_ranges (
    job    TEXT NOT NULL REFERENCES encx_jobs (name),
    run    INTEGER NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 1),
    -- Where it begins and ends; null is the beginning and the end of all.
    after  BLOB CHECK (length(after) <= 8192),
    upto   BLOB CHECK (length(upto) <= 8192),
    holder BLOB NOT NULL CHECK (length(holder) = 16),
    until  INTEGER NOT NULL,
    PRIMARY KEY (job, run, number)
) STRICT;

-- Claims that have ended, the oldest first.
CREATE INDEX encx_job_ranges_until ON encx_job_ranges (job, run, until, number);

CREATE TABLE encx_processes (
    id           BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    name         TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) <= 200),
    -- Microseconds, 100 years of 366 days at most.
    serves_for   INTEGER NOT NULL CHECK (serves_for BETWEEN 0 AND 3162240000000000),
    started_at   INTEGER NOT NULL,
    seen_at      INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL CHECK (acknowledged >= 0)
) STRICT;

-- One row, once the fence was raised.
CREATE TABLE encx_fences (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL CHECK (number >= 1)
) STRICT;
