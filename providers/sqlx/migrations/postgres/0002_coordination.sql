-- What lets processes work together: leases, jobs that many share, and the registry of processes. Only adds, so that
-- a library that knows version 1 works on.

-- The oldest version of these tables whose library works with them as they are from this one on; null if only its own.
ALTER TABLE encx.migrations
    ADD COLUMN compatible_from integer CHECK (compatible_from BETWEEN 1 AND version);

CREATE TABLE encx.leases (
    name   text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 200),
    -- Who holds it, or held it last.
    holder uuid NOT NULL,
    since  timestamptz NOT NULL,
    until  timestamptz NOT NULL,
    -- Grows with every other holder.
    term   bigint NOT NULL CHECK (term >= 1),
    CHECK (until >= since)
);

CREATE TABLE encx.jobs (
    name        text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 200),
    run         bigint NOT NULL CHECK (run >= 1),
    plan        text NOT NULL CHECK (octet_length(plan) <= 8192),
    frontier    bytea CHECK (octet_length(frontier) <= 8192),
    at_end      boolean NOT NULL,
    finished    boolean NOT NULL,
    -- How many ranges there were in this run, and how many of them are not complete.
    ranges      bigint NOT NULL CHECK (ranges >= 0),
    open_ranges bigint NOT NULL CHECK (open_ranges BETWEEN 0 AND ranges),
    changed     bigint NOT NULL CHECK (changed >= 0),
    unchanged   bigint NOT NULL CHECK (unchanged >= 0),
    failed      bigint NOT NULL CHECK (failed >= 0),
    CHECK (finished = (at_end AND open_ranges = 0))
);

-- Ranges that were claimed and are not complete: what is complete is counted in its job and deleted here.
CREATE TABLE encx.job_ranges (
    job      text NOT NULL REFERENCES encx.jobs (name),
    run      bigint NOT NULL,
    number   bigint NOT NULL CHECK (number >= 1),
    -- Where it begins and ends; null is the beginning and the end of all.
    after    bytea CHECK (octet_length(after) <= 8192),
    upto     bytea CHECK (octet_length(upto) <= 8192),
    holder   uuid NOT NULL,
    until    timestamptz NOT NULL,
    PRIMARY KEY (job, run, number)
);

-- Claims that have ended, the oldest first.
CREATE INDEX job_ranges_until ON encx.job_ranges (job, run, until, number);

CREATE TABLE encx.processes (
    id           uuid PRIMARY KEY,
    name         text NOT NULL CHECK (octet_length(name) <= 200),
    -- Microseconds, 100 years of 366 days at most.
    serves_for   bigint NOT NULL CHECK (serves_for BETWEEN 0 AND 3162240000000000),
    started_at   timestamptz NOT NULL,
    seen_at      timestamptz NOT NULL,
    acknowledged bigint NOT NULL CHECK (acknowledged >= 0)
);

-- One row, once the fence was raised.
CREATE TABLE encx.fences (
    id     boolean PRIMARY KEY CHECK (id),
    number bigint NOT NULL CHECK (number >= 1)
);
