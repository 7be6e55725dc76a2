-- Which version of encx each process runs; null of a library that does not say. Only adds, so that a library that knows
-- version 1 works on.

ALTER TABLE encx_processes ADD COLUMN version TEXT CHECK (length(CAST(version AS BLOB)) BETWEEN 1 AND 64);
