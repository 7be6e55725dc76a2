//! Contracts and formats of [encx](https://docs.rs/encx): what a KMS and a key store offer, and what bytes look like.
//!
//! Services use `encx`, which re-exports what they need. A provider, which talks to one KMS or one database, needs no more
//! than this crate for its contract: it brings no cipher, no runtime and no cache.
//!
//! - [`kms`]: the contract of a KMS, [`KeyManagementService`](kms::KeyManagementService).
//! - [`store`]: the contract of a key store, [`KeyStore`](store::KeyStore), with what it is given and gives back.
//! - [`key`]: data keys, their ids, states and wraps. [`context`]: what chooses them.
//! - [`aad`]: what binds a ciphertext to its place. [`ciphertext`], [`blind_index`], `password`: what columns keep.
//! - [`causes`]: how errors print.
//! - [`clock`]: the time, as tests set it.
//! - [`codec`]: fields' values as bytes. [`column`](mod@column): encrypted columns, as jobs walk through them.
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
