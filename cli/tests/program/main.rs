//! The program as a process, on SQLite and on PostgreSQL: what it writes, and how it ends.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod failures;
mod files;
mod formats;
mod keks;
mod keys;
mod long;
mod restored;
mod rotate;
mod rows;
mod sealed;
mod shared;
mod shred;
mod support;
mod users;
