//! Jobs over the rows of your own tables, for [encx](https://docs.rs/encx): re-encrypt them after a rotation,
//! open them all, count them by data key, and encrypt plaintext columns.
//!
//! [`Rows`] represents the tables of one database, accessed through your own pool. Its methods return jobs
//! that processes share, throttle, stop and resume: see [`encx::jobs::Job`].
//!
//! | task | call |
//! | --- | --- |
//! | move rows to the active version of their key | [`Rows::reencrypt`] |
//! | find rows that do not open | [`Rows::verify`]; [`Rows::verify_sample`] for a random sample |
//! | find versions that rows still use, before destroying the others | [`Rows::census`] |
//! | check that no row under a destroyed key opens | [`Rows::try_open_under`] |
//! | find ciphertext columns, and check a column's description | [`Rows::sealed_columns`], [`Rows::check_column`] |
//! | encrypt a plaintext column | [`Rows::adopt`], and [`read_either`] until it is done |
//!
//! Feature `postgres` (default) supports tables in PostgreSQL, `sqlite` tables in SQLite. `aes-gcm` (default),
//! `aws-lc-rs` and `ring` choose the cipher backend, as in `encx`.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Without a database feature the crate is empty.
#![cfg(any(feature = "postgres", feature = "sqlite"))]

mod adopt;
mod adoption;
mod adoption_status;
mod catalog;
mod cell;
mod census;
mod elsewhere;
mod error;
mod fault;
mod ident;
mod layout;
#[cfg(feature = "postgres")]
mod postgres;
mod read_either;
mod reencrypt;
mod rows;
mod sample;
mod sealed;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod under;
mod verify;
mod walk;

pub use adopt::{Adopt, AdoptionJobs, PlaintextColumn};
pub use adoption::Adoption;
pub use adoption_status::AdoptionStatus;
pub use census::{Census, KeyCount};
pub use error::RowsError;
pub use fault::{Elsewhere, Opens};
pub use read_either::read_either;
pub use reencrypt::Reencrypt;
pub use rows::Rows;
pub use sample::{RowFault, SampledColumn};
pub use sealed::SealedColumn;
pub use under::TriedRow;
pub use verify::Verify;

/// Compiles the README's example.
#[cfg(all(doctest, feature = "postgres"))]
#[doc = include_str!("../README.md")]
struct Readme;
