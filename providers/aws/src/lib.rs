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
//! # How it treats answers
//!
//! - Every `Decrypt` and `ReEncrypt` names the KEK by its ARN, from the KEK rule's set, and compares the ARN in the
//!   answer. AWS KMS would find the key by the wrapped key's own metadata, which is not authenticated.
//! - The call that wraps resolves an alias, and the wrap carries the key's ARN.
//! - A multi-region key (`mrk-`) is used in the first available region. Its wraps carry the ARN by which the KEK rule
//!   names it, whichever region wrapped: use the same ARN in every process.
//! - A rewrap is one `ReEncrypt` that names source and destination key and context: the data key stays inside AWS KMS.
//!   Between two regions, which `ReEncrypt` does not support, the key passes through this process.
//! - Plaintexts are moved out of the answer and wiped. Copies by the SDK or TLS are out of reach.
//!
//! <div class="warning">
//!
//! **Deleting a KMS key loses all data** that was encrypted under it. Of the policies of [`policy`], only
//! [`key_deleter`](policy::KeyPolicy::key_deleter) grants deletion, and none grants disabling a key.
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

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
