//! KEKs in a protected local file, for `encx`: for development, single machines, and deployments without a KMS.
//!
//! ```
//! use encx_local::{LocalKms, Protection};
//!
//! # async fn example(passphrase: String) -> Result<(), Box<dyn std::error::Error>> {
//! let kms = LocalKms::open_or_create("/var/lib/app/keks.encx", Protection::passphrase(passphrase)).await?;
//! let logs = kms.create_kek().await?;
//! kms.create_alias("alias/logs", &logs).await?;
//! # Ok(())
//! # }
//! ```
//!
//! <div class="warning">
//!
//! **A lost file or a lost passphrase loses all data** that was encrypted under its KEKs: neither can be recovered.
//! Back up the file, again after each [`create_kek`](LocalKms::create_kek) and [`rotate_kek`](LocalKms::rotate_kek),
//! and keep the passphrase elsewhere.
//!
//! </div>
//!
//! # What it protects
//!
//! KEKs wrap data keys. The KEKs are in one file that a [`Protection`] encrypts. An attacker with the database and the
//! file still needs the passphrase or the key. Unlike with a remote KMS, the KEKs are in this process's memory while it
//! runs, their use is not logged, and the only way to withdraw one is to remove its file.
//!
//! The file is created with mode 0600 and replaced atomically. It is refused if it belongs to neither this process's
//! user nor root, or if its group or others have any permission on it. An attacker who can still write its directory
//! can restore an older copy, which undoes a rotation or a disablement, or, before a process opens it, substitute
//! another file under the same passphrase or key. So use one passphrase or key for one file. A running handle refuses
//! another file.
//!
//! Several processes may use and change it at once; each sees the others' changes at its next call. This relies on
//! advisory locks and atomic renames, which local file systems provide and some network file systems do not. Beside the
//! file are `….lock`, which stays, and, briefly, `….tmp`. On systems other than Unix, owner and permissions are not
//! checked, and [`Protection::insecure_file_permissions_only`] is refused.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod argon2_params;
mod disk;
mod error;
mod format;
mod keks;
mod kms;
mod protection;

pub use argon2_params::Argon2Params;
pub use error::LocalKmsError;
pub use keks::LocalKek;
pub use kms::LocalKms;
pub use protection::Protection;
