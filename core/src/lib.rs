//! Contracts and formats of [encx](https://docs.rs/encx): the traits of a KMS and a key store, and the wire formats.
//!
//! Services use `encx`, which re-exports what they need. A provider for a KMS or a database needs only this crate for
//! its contract. It depends on no cipher, no runtime and no cache.
//!
//! - [`kms`]: the contract of a KMS, [`KeyManagementService`](kms::KeyManagementService).
//! - [`store`]: the contract of a key store, [`KeyStore`](store::KeyStore), with its parameters and results.
//! - [`key`]: data keys, their ids, states and wraps. [`context`]: selects them.
//! - [`aad`]: binds a ciphertext to its place. [`ciphertext`], [`blind_index`], `password`: the contents of columns.
//! - [`causes`]: how errors print.
//! - [`clock`]: the time, which tests control.
//! - [`codec`]: fields' values as bytes. [`column`](mod@column): encrypted columns, for jobs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod aad;
pub mod blind_index;
pub mod causes;
pub mod ciphertext;
pub mod clock;
pub mod codec;
pub mod column;
pub mod context;
pub mod key;
pub mod kms;
#[doc(hidden)]
pub mod memory;
#[cfg(feature = "password")]
pub mod password;
#[cfg(feature = "serde")]
mod serde_types;
#[cfg(feature = "sqlx-0_9")]
mod sqlx_types;
pub mod store;
mod timestamp;
