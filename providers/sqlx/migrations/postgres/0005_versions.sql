-- Which version of encx each process runs; null of a library that does not say. Only adds, so that a library that knows
-- version 1 works on.

ALTER TABLE encx.processes ADD COLUMN version text CHECK (octet_length(version) BETWEEN 1 AND 64);
