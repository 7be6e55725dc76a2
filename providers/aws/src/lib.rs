//! AWS KMS as the key management service of `encx`: KEKs that never leave AWS.
//!
//! ```no_run
//! use encx::Crypto;
//! use encx_aws::AwsKms;
//!
//! # async fn example(store: impl encx::store::KeyStore) -> Result<(), Box<dyn std::error::Error>> {
//! // Credentials and AWS_REGION as for any program that uses AWS; the KEK from AWS_KMS_KEY_ID.
//! let kms = AwsKms::from_env().await?;
//! let crypto = Crypto::builder(kms, store).build().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does with each answer
//!
//! - Every `Decrypt` and `ReEncrypt` names the KEK by its ARN, from the KEK rule's set, and the ARN that comes back is compared.
//!   AWS KMS would find the key by the wrapped key's own metadata, which nobody has authenticated.
//! - An alias is resolved by the call that wraps, and the wrap carries the key's ARN.
//! - A multi-region key (`mrk-`) is used in the first region that is available. Its wraps carry the ARN by which the KEK
//!   rule names it, whichever region made them: name it by one and the same ARN in every process.
//! - A rewrap is one `ReEncrypt`, source key and context named twice: the data key stays inside AWS KMS. Between two
//!   regions, which `ReEncrypt` cannot do, the key passes through this process.
//! - Plaintexts are taken out of the answer and wiped. Copies that the SDK or TLS makes of an answer's bytes are out of reach.
//!
//! <div class="warning">
//!
//! **Deleting a KMS key loses all data** that was encrypted under it. None of the policies that [`policy`] makes allows it,
//! nor disabling a key.
//!
//! </div>
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod admin;
mod arn;
mod builder;
mod clients;
mod codes;
mod credentials;
mod endpoint;
mod error;
mod flights;
mod kms;
mod moment;
pub mod policy;
mod proxy;
mod regions;
mod requests;
mod setup_error;

pub use aws_sdk_kms::config::retry::RetryMode;

pub use builder::AwsKmsBuilder;
pub use error::AwsError;
pub use kms::AwsKms;
pub use setup_error::AwsKmsError;

/// Compiles the examples that newcomers copy.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
