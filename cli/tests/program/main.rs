//! Runs the program as a process on SQLite and PostgreSQL, and checks its output and exit code.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod changes;
mod colour;
mod doctor;
mod failures;
mod files;
mod formats;
mod keks;
mod keys;
mod long;
#[cfg(target_os = "linux")]
mod memory;
#[path = "../../../providers/sqlx/tests/common/pooler.rs"]
mod pooler;
mod report;
mod restored;
mod rotate;
mod rows;
mod sealed;
#[path = "../../../providers/sqlx/tests/faults/server.rs"]
#[allow(dead_code, reason = "the tests that it was written for do more with it")]
mod server;
mod settings;
mod shared;
mod shred;
mod support;
mod users;
