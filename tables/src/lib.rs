//! Jobs over the rows of your own tables, for [encx](https://docs.rs/encx): re-encrypt them after a rotation, open them all,
//! count them by data key, and turn plaintext columns into encrypted ones.
//!
//! [`Rows`] stands for the tables of one database, through your own pool. Its methods give jobs: shared by processes,
//! throttled, stopped and resumed, as [`encx::jobs::Job`] says.
//!
//! | to do | call |
//! | --- | --- |
//! | move rows to the active version of their key | [`Rows::reencrypt`] |
//! | find rows that do not open | [`Rows::verify`]; [`Rows::verify_sample`] for some of them |
//! | see which versions rows still use, so that the others may be destroyed | [`Rows::census`] |
//! | see that nothing under a destroyed key opens | [`Rows::try_open_under`] |
//! | find columns of ciphertexts, and compare one with its description | [`Rows::sealed_columns`], [`Rows::check_column`] |
//! | turn a plaintext column into an encrypted one | [`Rows::adopt`], and [`read_either`] until it is done |
//!
//! Feature `postgres` (on by default) is for tables in PostgreSQL, `sqlite` for tables in SQLite. `aes-gcm` (on by default) and
//! `aws-lc-rs` choose the cipher backend, as those of `encx` do.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Without a database there are no rows.
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

/// Compiles the example of the README.
#[cfg(all(doctest, feature = "postgres"))]
#[doc = include_str!("../README.md")]
struct Readme;
