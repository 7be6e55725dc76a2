//! Settings of [encx](https://docs.rs/encx) from environment variables and `encx.toml`.
//!
//! ```no_run
//! use encx_config::Settings;
//!
//! # async fn example() -> Result<(), encx_config::ConfigError> {
//! // ENCX_KMS=aws-kms:alias/shop-pii ENCX_KEY_STORE=postgres://app@db.internal/app
//! let settings = Settings::load()?;
//! let crypto = settings.crypto().await?;
//! # let _ = crypto;
//! # Ok(())
//! # }
//! ```
//!
//! - [`Settings::load`] reads this process's environment and the file. A [`Loader`] reads what a test gives, and
//!   supports your own KMSs and key stores.
//! - [`Settings::crypto`] builds a `Crypto`. [`Settings::builder`] returns the builder for further changes.
//!   [`Settings::kms`], [`Settings::key_store`] and [`Settings::key_manager`] return the parts.
//! - [`Settings::describe`] lists the settings in effect and what sets them, without secrets.
//! - [`Settings::columns`] lists the encrypted columns that the file declares. [`columns_toml`] writes those of
//!   `#[derive(Encrypt)]`, and [`assert_columns_match`] compares them in a test.
//!
//! The README lists every setting. A setting that is unknown, lacks a unit or cannot be used is refused:
//! [`ConfigError`] names the variable, or the key and line, and says what to write.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod columns;
mod describe;
mod document;
mod error;
mod index;
mod keys;
mod kms;
mod limits;
mod loader;
mod plaintext;
mod resolve;
mod rotation;
mod rule;
mod secret;
mod settings;
mod source;
mod store;
mod units;

pub use columns::{DeclaredColumn, columns_toml};
pub use describe::{DescribedSetting, Description};
pub use error::{BoxError, ConfigError};
pub use kms::{KmsUrl, OpenKms};
pub use loader::Loader;
pub use plaintext::DeclaredPlaintext;
pub use secret::SecretUrl;
pub use settings::{Settings, assert_columns_match};
pub use source::Origin;
pub use store::{MigrationStep, Migrations, OpenStore, StoreUrl};

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
