//! Key stores in PostgreSQL and SQLite, for encx.
